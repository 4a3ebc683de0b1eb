"""Engines that search an index: derived from its descriptors, and made again from them.

`protocol` documents what an engine does, `opening` chooses one by its URL, and
`updating` brings it up to date. The descriptors in the parts of the index stay the
source of truth: whatever happens to an engine, nothing is lost.
"""
