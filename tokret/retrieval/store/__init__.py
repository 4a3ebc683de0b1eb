"""Descriptors on the disk, safe against a kill and never mixed with others.

A store is a folder. A complete one has `descriptors.npy`, [N, D] float32 in the order
of the images, and `store.json`: the model, a digest of its weights, the preprocessing,
and the name, size, box and file digest of each image. An unfinished one has
`unfinished.json` instead, and `finished`, with a line for each batch whose descriptors
are on the disk. A batch's rows are written first, then its line, each synchronised to
the disk before the next write; `store.json` comes last. So a process that is killed at
any moment resumes where it stopped.
"""
