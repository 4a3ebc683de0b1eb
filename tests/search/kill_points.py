"""Kills updates of an index at their steps on the disk, and checks what is left.

    python -m tests.search.kill_points FOLDER STRIDE

FOLDER is an empty one; of the steps (a file opened for writing, written, synchronised,
renamed or removed; a folder made or removed; a transaction started or committed) every
STRIDE-th is a kill point. In a commit, whose steps are SQLite's, the kill comes some
time later. Each update runs in a fork of this process, which itself starts no thread of
XLA.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
import sqlite3
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from tests.search.contents import read_catalogue
from tokret.config.parsing import parse_saved
from tokret.config.tree import ExtractionConfig
from tokret.evaluation.systems import ModelSystem
from tokret.retrieval.store.record import weights_digest
from tokret.search import index_changes, indexing
from tokret.search.catalogue import FILE, open_catalogue
from tokret.search.catalogue_rows import ModelInfo
from tokret.search.extractor import Extractor
from tokret.search.index_writer import Limits
from tokret.search.part_stores import open_parts
from tokret.search.photos import read_digest, read_view

SIDE = 16
# Several parts in any update, and merges.
LIMITS = Limits(rows=6, seconds=0.0, small=2)
STEPS = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def embed(variables, images, sizes, scaled):
    """Descriptors of one photo each, exact: the mean colours of its pixels."""
    sums = np.asarray(images, np.float64).sum(axis=(1, 2))
    found = sums / np.prod(np.asarray(sizes), axis=1)[:, None]
    return (found * np.asarray(variables["params"]["scale"])).astype(np.float32)


def extractor(scale):
    settings = ExtractionConfig(longest_side=SIDE, scales=(1.0,), batch_size=2)
    variables = {
        "params": {"scale": np.full((1,), scale, np.float32)},
        "batch_stats": {"mean": np.zeros((1,), np.float32)},
    }
    model = {"trunk": "tiny", "head": "gem", "dtype": "float32", "dim": 8}
    nowhere = Path(os.devnull)
    system = ModelSystem(embed, variables, settings, model, nowhere, print, print)
    info = ModelInfo("/run", weights_digest(variables), SIDE, (1.0,), model)
    return Extractor(system, info, parse_saved({"model": model}))


def write_photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def right(root, name, scale):
    pixels = read_view(root / name, name, None, SIDE).pixels()
    sizes = np.array([pixels.shape[:2]])
    return embed({"params": {"scale": [scale]}}, pixels[None], sizes, None)[0]


class Killer:
    """Kills this process at a step on the disk."""

    def __init__(self, step):
        self._step, self._steps = step, itertools.count(1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, as SIGKILL
        sqlite3.connect = self._connecting(sqlite3.connect)
        os.fsync, os.pwrite = self._counted(os.fsync), self._counted(os.pwrite)
        sys.addaudithook(self._hook)

    def _count(self):
        if next(self._steps) == self._step:
            os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, function):
        def run(*arguments):
            self._count()
            return function(*arguments)

        return run

    def _hook(self, event, arguments):
        if event in STEPS or (event == "open" and (arguments[2] or 0) & WRITING):
            self._count()

    def _connecting(self, connect):
        def run(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self._trace)
            return connection

        return run

    def _trace(self, words):
        if words in ("BEGIN IMMEDIATE", "COMMIT"):
            self._count()
        for _ in range(3 if words == "COMMIT" else 0):
            if next(self._steps) == self._step:
                delay = random.Random(self._step).uniform(0.0001, 0.004)
                signal.setitimer(signal.ITIMER_REAL, delay)


def run(change, index, scale, step):
    """Changes an index in a fork; whether it was killed."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            Killer(step)
            change(index, extractor(scale))
            os._exit(0)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def updating(root, rebuild=False):
    return lambda index, made: indexing.update_index(
        root, index, lambda copy: made, rebuild=rebuild, limits=LIMITS
    )


def adding_and_removing(names, removed):
    def change(index, made):
        index_changes.remove_photos(index, removed)
        index_changes.add_files(index, names, lambda copy: made, limits=LIMITS)

    return change


def check(root, index, scales, kept, stale=frozenset()):
    """What a query needs is there, and right, of one model or the other.

    `kept` are photos that must be there; `stale`, those that may be as they were.
    """
    if not (index / FILE).exists():
        assert not kept
        return
    catalogue = read_catalogue(index)
    with open_catalogue(index) as opened:
        stores, damaged = open_parts(index, opened)
    assert not damaged
    (scale,) = [
        s for s in scales if extractor(s).model.weights == catalogue.model.weights
    ]
    assert kept <= catalogue.photos.keys()
    for name, entry in catalogue.photos.items():
        if name not in stale and not entry.is_removed:
            row = stores[entry.part].descriptors[entry.row]
            np.testing.assert_array_equal(row, right(root, name, scale))


def check_complete(root, index, scale):
    names = {p.relative_to(root).as_posix() for p in root.rglob("*.png")}
    catalogue = read_catalogue(index)
    assert catalogue.photos.keys() == names
    check(root, index, [scale], names)
    rows = [row for rows in catalogue.live_rows().values() for row in rows]
    live = [entry for entry in catalogue.photos.values() if not entry.is_removed]
    assert len(rows) == len({entry.digest for entry in live})
    assert set(os.listdir(index / "parts")) == {*catalogue.live_rows()}
    assert os.listdir(index / "weights") == [catalogue.model.copy]
    left = {*os.listdir(index)} - {FILE, ".lock", "parts", "weights"}
    assert not left, left


def make_photos(root):
    for number in range(11):
        write_photo(root / f"{number}.png", number)


def change_photos(root):
    """Some are gone, renamed, replaced and new; returns the names of these."""
    (root / "0.png").unlink()
    (root / "1.png").rename(root / "renamed.png")
    write_photo(root / "2.png", 20)
    write_photo(root / "more" / "3.png", 21)
    write_photo(root / "more" / "4.png", 22)
    shutil.copy(root / "5.png", root / "more" / "5.png")
    return {"0.png", "1.png", "2.png"}


def scenarios(folder):
    """Yields name, what is killed, an index to start from or None, scale, stale."""
    root, index = folder / "photos", folder / "start"
    make_photos(root)
    yield "new", updating(root), None, 1.0, set()
    assert not run(updating(root), index, 1.0, 0)
    yield "rebuild", updating(root, rebuild=True), index, 2.0, set()
    for number in (11, 12, 13):
        write_photo(root / f"{number}.png", number)
    names = [f"{number}.png" for number in (11, 12, 13)]
    removed = [read_digest(root / f"{number}.png") for number in (3, 4, 7)]
    yield "changes", adding_and_removing(names, removed), index, 1.0, set()
    yield "update", updating(root), index, 1.0, change_photos(root)


def main(folder, stride):
    warnings.filterwarnings("ignore", "os.fork")
    root, index, killed = folder / "photos", folder / "index", {}
    for name, change, start, scale, stale in scenarios(folder):
        killed[name] = 0
        kept = read_catalogue(start).photos.keys() - stale if start else set()
        for step in itertools.count(1, stride):
            shutil.rmtree(index, ignore_errors=True)
            if start is not None:
                shutil.copytree(start, index)
            if not run(change, index, scale, step):
                check_complete(root, index, scale)
                break
            killed[name] += 1
            check(root, index, [1.0, 2.0], kept, stale)
            # Once more, killed elsewhere, and then to the end.
            killed[name] += run(change, index, scale, 3 * step % 101 + 1)
            check(root, index, [1.0, 2.0], kept, stale)
            assert not run(change, index, scale, 0)
            check_complete(root, index, scale)
    sys.stdout.write(
        " ".join(f"{name}:{count}" for name, count in killed.items()) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
