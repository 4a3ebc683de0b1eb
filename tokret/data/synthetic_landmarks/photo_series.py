"""The photos of many landmarks, rendered in threads and in order."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from tokret.data.synthetic_landmarks.building_designs import design
from tokret.data.synthetic_landmarks.photo_rendering import Photo, take_photo

A = TypeVar("A")
B = TypeVar("B")

# Part of the seeds of random generators: three sets of landmarks, five of photos.
TRAIN, VALIDATION, QUERY, DATABASE, DISTRACTOR = range(5)
_GROUPS = {TRAIN: 0, VALIDATION: 0, QUERY: 1, DATABASE: 1, DISTRACTOR: 2}

# Probability of each kind of photo (photo_planning.KINDS).
_PROBABILITIES = {
    TRAIN: {"clear": 0.15, "easy": 0.43, "hard": 0.34, "night": 0.06, "junk": 0.02},
    VALIDATION: {"clear": 0.3, "easy": 0.5, "hard": 0.2},
    QUERY: {"clear": 1.0},
    DATABASE: {"easy": 0.4, "hard": 0.4, "night": 0.02, "junk": 0.18},
    DISTRACTOR: {"clear": 0.2, "easy": 0.4, "hard": 0.3, "night": 0.1},
}
# Each landmark's first photos in the database: one easy, one hard for every query.
FIRST = {DATABASE: ("clear", "night")}


class Series(NamedTuple):
    """The first photos of one of a landmark's series."""

    seed: int
    landmark: int
    series: int
    photos: int
    longest_side: int


def take_series(task: Series) -> list[Photo]:
    """Designs a landmark and takes its photos, each from its own generator."""
    # The 1 that is added below makes the photos' generators differ from the landmark's:
    # trailing zeros do not change a seed sequence.
    seeds = [task.seed, _GROUPS[task.series], task.landmark]
    landmark = design(np.random.default_rng(seeds))
    probabilities = _PROBABILITIES[task.series]
    first = FIRST.get(task.series, ())
    photos = []
    for number in range(task.photos):
        rng = np.random.default_rng([*seeds, task.series + 1, number])
        drawn = str(rng.choice(list(probabilities), p=list(probabilities.values())))
        kind = first[number] if number < len(first) else drawn
        photos.append(take_photo(rng, landmark, kind, task.longest_side))
    return photos


def in_order(work: Callable[[A], B], tasks: Iterable[A], threads: int) -> Iterator[B]:
    """Maps in threads, in the order of the tasks, a few results ahead."""
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
    finally:  # an interrupt does not wait for the remaining results
        pool.shutdown(cancel_futures=True)
