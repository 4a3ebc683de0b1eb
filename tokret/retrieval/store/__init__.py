"""Descriptors on the disk that cannot be lost, and cannot be taken for others.

A store is a folder. When it is complete it holds `descriptors.npy`, [N, D] float32 in
the order of the images, and `store.json`: model, digest of the weights, preprocessing,
and of each image its name, size, box, and digest of its file. While it is being made
it holds `unfinished.json` in its place and `finished`, a line for each batch whose
descriptors are on the disk. The order of writing is: a batch's rows, then its line,
each made to last before what follows; at the end `store.json`. So a process that is
killed at any moment goes on where it was.
"""

from tokret.retrieval.store.reading import open_store

__all__ = ["open_store"]
