"""One process that tries mutations, within limits of time and memory.

It takes its work from standard input and prints a line of JSON after some mutations.
What ends it, or holds it up, is seen by the process that started it (supervision.py).
"""

import dataclasses
import faulthandler
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.readers import READERS, Reader
from tokret.errors import UserError

SECONDS = 3  # of the processor, for a mutation
MEMORY = 2**30  # bytes more than before, for a mutation
FLUSH = 250  # mutations between two lines
# Errors of code that is wrong, not of files; these modules raise them for files.
DEFECTS = (AttributeError, TypeError, NameError, AssertionError, UnboundLocalError)
UNPICKLERS = ("tokret.io.restricted_pickle", "tokret.io.torch_pickle")


@dataclasses.dataclass
class Tally:
    """What mutations ended in."""

    reader: str
    next: int  # the mutation after those that are counted
    refused: int = 0
    accepted: int = 0
    unexpected: dict[str, list[int]] = dataclasses.field(default_factory=dict)


class _TooSlow(BaseException):  # noqa: N818 (no `except Exception` may catch it)
    pass


_deadline = math.inf  # processor time of this process


def _stop(*_: Any) -> None:
    # Some kernels send the signal early, or after the timer was stopped.
    if time.process_time() >= _deadline:
        raise _TooSlow


def attempt(reader: Reader, path: Path) -> str | None:
    """Reads a file; None if it is accepted, "" if refused, else what was unexpected."""
    global _deadline
    _deadline = time.process_time() + SECONDS
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.1)
    try:
        reader.read(path)
        return None
    except UserError as error:
        return _judge(error, path)
    except _TooSlow as error:
        return f"more than {SECONDS} seconds, {_place(error)}"
    except BaseException as error:
        return f"{type(error).__name__}, {_place(error)}"
    finally:
        _deadline = math.inf
        signal.setitimer(signal.ITIMER_PROF, 0)


def _judge(error: UserError, path: Path) -> str:
    """Returns what is wrong with a refusal; "" if nothing is."""
    words = str(error)
    if not any(name in words for name in path.parts[-4:]):
        return f"the error names no file: {words[:80]!r}"
    try:
        words.encode()
    except UnicodeEncodeError:
        return f"the error cannot be printed: {words[:80]!a}"
    cause: BaseException | None = error
    while cause := cause.__cause__ if cause else None:
        frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
        module = str(frames[-1].f_globals.get("__name__")) if frames else ""
        own = module.startswith("tokret.") and module not in UNPICKLERS
        if isinstance(cause, MemoryError) or (own and isinstance(cause, DEFECTS)):
            return f"hidden {type(cause).__name__}, {_place(cause)}"
    return ""


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/tokret/" in f.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"


def mutated(name: str, valid: bytes, number: int, seed: int) -> bytes:
    """The file of a mutation's number."""
    rng = random.Random(f"{seed} {name} {number}")
    return READERS[name].mutate(rng, valid, number)


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def restore(folder: Path, whole: Mapping[Path, bytes]) -> None:
    shutil.rmtree(folder)
    for path, content in whole.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def try_no_files(
    reader: Reader, path: Path, folder: Path, whole: Mapping[Path, bytes]
) -> Iterator[str]:
    """Yields what is unexpected where a folder or a pipe has the file's name."""
    for kind, make in (("a folder", os.mkdir), ("a named pipe", os.mkfifo)):
        restore(folder, whole)
        path.unlink()
        make(path)
        found = attempt(reader, path)
        if found or (found is None and not reader.rewrites):
            yield f"{kind}: {found or 'accepted'}"
    restore(folder, whole)


def try_reader(
    name: str, numbers: range, seed: int, skipped: set[int], folder: Path
) -> Iterator[Tally]:
    """Tries mutations by their numbers; yields the tally now and then."""
    reader, tally = READERS[name], Tally(name, numbers.start)
    # Threads of libraries are started without the limit of the reader before.
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    path = reader.prepare(folder)
    progress = os.open(folder.parent / "progress", os.O_WRONLY | os.O_CREAT)
    os.pwrite(progress, b"%-20d" % numbers.start, 0)
    whole = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found = attempt(reader, path)
    assert found is None, f"{name}: the valid file: {found or 'refused'}"
    limit_memory()
    if numbers.start == 0 and 0 not in skipped:
        tally.unexpected |= dict.fromkeys(
            try_no_files(reader, path, folder, whole), [0]
        )
    for number in numbers:
        os.pwrite(progress, b"%-20d" % number, 0)
        if reader.rewrites:
            restore(folder, whole)
        path.write_bytes(mutated(name, whole[path], number, seed))
        found = attempt(reader, path) if number not in skipped else ""
        tally.next = number + 1
        if number in skipped:
            pass  # its crash was counted
        elif found:
            tally.unexpected.setdefault(found, []).append(number)
        elif found is None:
            tally.accepted += 1
        else:
            tally.refused += 1
        if tally.next % FLUSH == 0 or tally.next == numbers.stop:
            yield tally
            tally = Tally(name, tally.next)
    os.close(progress)


def main() -> None:
    """Does the work of standard input."""
    faulthandler.enable()
    signal.signal(signal.SIGPROF, _stop)
    # A warning would be printed on a user's terminal.
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)
    work = json.load(sys.stdin)
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    for name, first, last, skipped in work["readers"]:
        folder = Path(work["folder"]) / f"reader-{list(READERS).index(name)}-{first}"
        folder.mkdir()
        for tally in try_reader(
            name, range(first, last), work["seed"], set(skipped), folder
        ):
            print(json.dumps(dataclasses.asdict(tally)), file=lines, flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
