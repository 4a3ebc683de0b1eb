"""All photos of many landmarks, in threads and in order."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from tokret.data.synthetic_landmarks import architecture
from tokret.data.synthetic_landmarks import photo_rendering as studio
from tokret.data.synthetic_landmarks.photo_rendering import Photo

A = TypeVar("A")
B = TypeVar("B")

# What random generators are told apart by: three sets of landmarks, five of photos.
TRAIN, VALIDATION, QUERY, DATABASE, DISTRACTOR = range(5)
TRAINED, BENCHMARK, THIRD = range(3)

# How often a photo is planned to be of a kind (planning.KINDS).
_SHARES = {
    TRAIN: {"clear": 0.15, "easy": 0.43, "hard": 0.34, "night": 0.06, "junk": 0.02},
    VALIDATION: {"clear": 0.3, "easy": 0.5, "hard": 0.2},
    QUERY: {"clear": 1.0},
    DATABASE: {"easy": 0.4, "hard": 0.4, "night": 0.02, "junk": 0.18},
    DISTRACTOR: {"clear": 0.2, "easy": 0.4, "hard": 0.3, "night": 0.1},
}
# Each landmark's first photos in the database: one easy, one hard for every query.
FIRST = {DATABASE: ("clear", "night")}


class Series(NamedTuple):
    """Photos of one landmark: the first ones of one of its series."""

    seed: int
    group: int
    landmark: int
    series: int
    photos: int
    longest_side: int


def take_series(task: Series) -> list[Photo]:
    """Designs a landmark and takes its photos, each from its own generator."""
    # The one that is added keeps a landmark's generator apart from its photos':
    # trailing zeros do not change a seed sequence.
    design = np.random.default_rng([task.seed, task.group, task.landmark])
    landmark = architecture.design(design)
    shares = _SHARES[task.series]
    first = FIRST.get(task.series, ())
    photos = []
    for number in range(task.photos):
        rng = np.random.default_rng(
            [task.seed, task.group, task.landmark, task.series + 1, number]
        )
        drawn = str(rng.choice(list(shares), p=list(shares.values())))
        kind = first[number] if number < len(first) else drawn
        photos.append(studio.take(rng, landmark, kind, task.longest_side))
    return photos


def in_order(work: Callable[[A], B], tasks: Iterable[A], threads: int) -> Iterator[B]:
    """Maps in threads, in the order of the tasks, with few results waiting."""
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[B]] = deque()
        remaining = iter(tasks)
        for task in itertools.islice(remaining, 2 * threads):
            waiting.append(pool.submit(work, task))
        while waiting:
            result = waiting.popleft().result()
            for task in itertools.islice(remaining, 1):
                waiting.append(pool.submit(work, task))
            yield result
    finally:  # an interrupt does not wait for what nobody will take
        pool.shutdown(cancel_futures=True)
