# ruff: noqa
"""Stands for tokret.search.searcher until that is there."""

import dataclasses
from collections import Counter
from typing import NamedTuple

import numpy as np

from tokret.search.catalogue import read_catalogue
from tokret.search.part_stores import open_parts
from tokret.search.searcher import restored as _restored


@dataclasses.dataclass(frozen=True)
class Filters:
    folders: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def accepts(self, folder):
        below = any(folder == f or folder.startswith(f + "/") for f in self.folders)
        label = folder.rpartition("/")[2]
        return (below or not self.folders) and (not self.labels or label in self.labels)


class Hit(NamedTuple):
    name: str
    score: float
    id: str = ""
    label: str = ""


class PhotoInfo(NamedTuple):
    id: str
    names: tuple[str, ...]
    label: str


def combine(positives, negatives):
    total = positives.mean(axis=0)
    if len(negatives):
        total = total - 0.5 * negatives.mean(axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class Searcher:
    def __init__(self, index, load, *, root=None, precision="float32"):
        self._catalogue = read_catalogue(index)
        stores, _ = open_parts(index, self._catalogue)
        from pathlib import Path

        self.root = root or Path(self._catalogue.root)
        self.model = self._catalogue.model
        self.extractor = _restored(index, self.model, load)
        entries = [(n, e) for n, e in sorted(self._catalogue.photos.items()) if e.part]
        self._names = [n for n, _ in entries]
        self._ids = [e.digest for _, e in entries]
        self._rows = np.stack([stores[e.part].descriptors[e.row] for _, e in entries])
        self.num_photos = len(entries)

    def search(self, queries, top, filters=Filters(), leave_out=()):  # noqa: B008
        scores = np.asarray(queries @ self._rows.T)
        return [
            [
                Hit(self._names[i], float(row[i]), self._ids[i], self._label(i))
                for i in np.argsort(-row, kind="stable")
                if filters.accepts(self._names[i].rpartition("/")[0])
            ][:top]
            for row in scores
        ]

    def _label(self, row):
        return self._names[row].rpartition("/")[0].rpartition("/")[2]

    def descriptors(self, ids):
        return self._rows[[self._ids.index(id) for id in ids]]

    def photo(self, id):
        names = tuple(n for n, i in zip(self._names, self._ids, strict=True) if i == id)
        if not names:
            return None
        return PhotoInfo(id, names, names[0].rpartition("/")[0].rpartition("/")[2])

    def folders(self):
        return dict(sorted(Counter(n.rpartition("/")[0] for n in self._names).items()))

    def labels(self):
        rows = range(len(self._names))
        return dict(sorted(Counter(self._label(row) for row in rows).items()))

    def browse(self, filters, offset, top):
        found = [
            (id, name)
            for id, name in zip(self._ids, self._names, strict=True)
            if filters.accepts(name.rpartition("/")[0])
        ]
        return found[offset : offset + top], len(found)

    def refresh(self):
        return False
