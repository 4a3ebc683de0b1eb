"""The photos of an index that is held open: their rows, paths, folders and labels."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tokret.shapes import Bool, Int, Shaped


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which photos to search: those in any of the folders and with any of the labels.

    A folder, relative to the index's root, means everything below it. Without folders,
    or without labels, all photos.
    """

    folders: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any photo is excluded."""
        return bool(self.folders or self.labels)

    def accepts(self, folder: str) -> bool:
        """Whether the photos directly in a folder are searched."""
        below = any(
            wanted == "" or folder == wanted or folder.startswith(f"{wanted}/")
            for wanted in (name.strip("/") for name in self.folders)
        )
        return (below or not self.folders) and (
            not self.labels or label_of(folder) in self.labels
        )


def folder_of(path: str) -> str:
    """The folder of a photo's path; "" for those directly in the root."""
    return path.rpartition("/")[0]


def label_of(folder: str) -> str:
    """The label of the photos directly in a folder: its name."""
    return folder.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Segment:
    """The photos of one part of an index."""

    part: str
    ids: Shaped[np.ndarray, " n"]  # of its rows in use: digests as uint64, ascending
    items: Int[np.ndarray, " n"]  # of each, its row in the held database
    paths: Sequence[str]  # of all photos, by row
    starts: Int[np.ndarray, " n1"]  # of each row's first path; and the number of paths
    folders: Int[np.ndarray, " p"]  # of each path, the number of its folder

    def names(self, row: int) -> Sequence[str]:
        """The paths of a row; copies of a photo have one row."""
        return self.paths[self.starts[row] : self.starts[row + 1]]


class PhotoTable:
    """Segments, and what is derived of them for searching. It does not change."""

    def __init__(
        self, segments: Mapping[str, Segment], folders: Sequence[str], rows: int
    ) -> None:
        """Makes a table.

        Args:
          segments: by part.
          folders: the names that the segments' numbers refer to.
          rows: of the held database.
        """
        self.segments = dict(segments)
        self.folder_names = tuple(folders)
        self._list = list(segments.values())
        self._owner = np.full(rows, -1, np.int32)  # of each item, its segment
        self._row = np.zeros(rows, np.int32)  # in that segment
        for number, segment in enumerate(self._list):
            self._owner[segment.items] = number
            self._row[segment.items] = np.arange(len(segment.items))
        self.used: Bool[np.ndarray, " n"] = self._owner >= 0
        # Filters recur from page to page.
        self.matching = functools.lru_cache(16)(self._match)
        self.num_photos = sum(len(segment.paths) for segment in self._list)

    def names(self, item: int) -> Sequence[str]:
        """The paths of a row of the held database."""
        return self._list[self._owner[item]].names(int(self._row[item]))

    def id(self, item: int) -> str:
        """The id of a row of the held database."""
        return f"{self._list[self._owner[item]].ids[self._row[item]]:016x}"

    def items(self, ids: Collection[str]) -> list[int]:
        """The rows of those photos that are in the index, in any order."""
        valid = sorted(set(filter(re.compile(r"[0-9a-f]{16}").fullmatch, ids)))
        wanted = np.array([int(each, 16) for each in valid], np.uint64)
        found: list[int] = []
        for segment in self._list if valid else ():
            rows = np.searchsorted(segment.ids, wanted).clip(max=len(segment.ids) - 1)
            found += segment.items[rows[segment.ids[rows] == wanted]].tolist()
        return found

    def _match(self, filters: Filters) -> Bool[np.ndarray, " n"]:
        """The rows of the held database with a path that the filters accept."""
        accepted = np.array([filters.accepts(name) for name in self.folder_names], bool)
        found = np.zeros(len(self.used), bool)
        for segment in self._list:
            some = accepted[segment.folders]
            if some.any():  # a row has one path or more
                any_path = np.logical_or.reduceat(some, segment.starts[:-1])
                found[segment.items] = any_path
        return found

    def folder_counts(self) -> dict[str, int]:
        """By folder, the number of photos directly in it, sorted by name."""
        counts = np.zeros(len(self.folder_names), np.int64)
        for segment in self._list:
            counts += np.bincount(segment.folders, minlength=len(counts))
        pairs = zip(self.folder_names, counts.tolist(), strict=True)
        return {name: count for name, count in sorted(pairs) if count}

    def label_counts(self) -> dict[str, int]:
        """By label, the number of photos, sorted by name."""
        counts: Counter[str] = Counter()
        for name, count in self.folder_counts().items():
            counts[label_of(name)] += count
        return dict(sorted(counts.items()))

    def browse(
        self, filters: Filters, offset: int, top: int
    ) -> tuple[list[tuple[str, str]], int]:
        """Lists photos by name: ids and names of some, and how many there are."""
        found = self._sorted
        if filters:
            found = [pair for pair in found if filters.accepts(folder_of(pair[0]))]
        some = found[offset : offset + top]
        return [(self.id(item), name) for name, item in some], len(found)

    @functools.cached_property
    def _sorted(self) -> list[tuple[str, int]]:
        """All paths with their items, by path."""
        pairs = []
        for segment in self._list:
            for row, item in enumerate(segment.items.tolist()):
                pairs += [(name, item) for name in segment.names(row)]
        return sorted(pairs)
