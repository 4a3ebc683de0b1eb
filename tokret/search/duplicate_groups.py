"""Groups of photos of an index that are nearly the same, or copies."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tokret.runtime.progress import Progress
from tokret.search.catalogue import open_catalogue
from tokret.search.catalogue_rows import to_text
from tokret.search.hits import Member
from tokret.search.searcher import Searcher
from tokret.shapes import Bool, Float, Int


def duplicate_groups(searcher: Searcher, score: float) -> list[list[Member]]:
    """Groups all photos of an index by their near-duplicates, exactly.

    Photos with a cosine of at least `score` are in one group, with copies and with all
    that are near-duplicates of theirs. All pairs are compared.

    Returns:
      Groups of two photos or more: the largest first, then the most similar.
    """
    tiles = list(searcher.tiles())
    with Progress("comparing", len(tiles) * (len(tiles) + 1) // 2) as bar:
        labels, best = _components(tiles, score, bar)
    ids = [to_text(number) for number in searcher.used_ids().tolist()]
    similar = np.bincount(labels)[labels] > 1
    group_of = {ids[row]: int(labels[row]) for row in np.flatnonzero(similar)}
    scores = {ids[row]: float(best[row]) for row in np.flatnonzero(similar)}
    groups: dict[str | int, list[Member]] = {}
    with open_catalogue(searcher.index) as catalogue:
        copied = catalogue.copied()
        photos = catalogue.photos_with({*group_of, *copied})
    for photo_id in copied:
        scores[photo_id] = 1.0
    for photo_id, entries in photos.items():
        if photo_id in scores:
            groups.setdefault(group_of.get(photo_id, photo_id), []).extend(
                Member(entry.name, photo_id, entry.label, scores[photo_id])
                for entry in entries
            )
    return sorted(map(sorted, groups.values()), key=_order)


def _order(group: Sequence[Member]) -> tuple[int, float, Member]:
    return -len(group), -max(member.score for member in group), group[0]


def _components(
    tiles: Sequence[Float[np.ndarray, "_ d"]], score: float, bar: Progress
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The group of each row, and its highest similarity to another row."""
    firsts = np.cumsum([0, *map(len, tiles)])
    best = np.full(firsts[-1], -1.0, np.float32)
    edges = [np.empty((2, 0), np.int64)]
    for i, one in enumerate(tiles):
        for j in range(i, len(tiles)):
            scores = one @ tiles[j].T
            if i == j:
                np.fill_diagonal(scores, -1)
            for begin, axis in ((firsts[i], 1), (firsts[j], 0)):
                highest = scores.max(axis=axis)
                part = best[begin : begin + len(highest)]
                np.maximum(part, highest, out=part)
            near = scores >= score
            if near.any():
                edges.append(_spanning(near, int(firsts[i]), int(firsts[j])))
            bar.update(1)
    return _connect(np.concatenate(edges, axis=1), int(firsts[-1])), best


def _spanning(
    near: Bool[np.ndarray, "a b"], first: int, second: int
) -> Int[np.ndarray, "2 e"]:
    """Pairs of rows that connect what a block of pairs does; at most a + b."""
    rows, columns = np.nonzero(near)
    pairs = np.stack([rows + first, columns + second])
    used, places = np.unique(pairs, return_inverse=True)
    if len(rows) <= len(used):
        return pairs
    labels = _connect(places.reshape(2, -1), len(used))
    _, representative = np.unique(labels, return_index=True)
    return np.stack([used, used[representative[labels]]])


def _connect(pairs: Int[np.ndarray, "2 e"], count: int) -> Int[np.ndarray, " n"]:
    """The number of each node's connected component."""
    ones = np.ones(pairs.shape[1], bool)
    graph = coo_array((ones, (pairs[0], pairs[1])), shape=(count, count))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels
