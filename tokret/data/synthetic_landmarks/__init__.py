"""Invented buildings and photographs of them, from random numbers alone.

`architecture` designs a building out of the solids of `masonry`, with walls painted by
`facades`; `planning` decides how a photo is taken, `camera` projects, `rendering` fills
a depth buffer, `scenery` and `occluders` surround the building, `photography` lights
and develops, `studio` puts these together; `benchmark` labels the photos.
"""
