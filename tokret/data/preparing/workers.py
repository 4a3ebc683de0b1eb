"""Work in processes of their own, one for each core: shards are written, photos seen.

Not `multiprocessing`: its children import the caller's main module again (for train.py
that is jax, in every one of them) or are forked from threads that jax has started, and
outlive a parent that was killed. These read their tasks from a pipe, and end with it.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import cv2

import tokret
from tokret.data.preparing.shards import ShardReport, ShardTask, WriteError, write_shard
from tokret.errors import UserError

TELL_EVERY = 0.2  # seconds between words on progress
_SERVE = "from tokret.data.preparing.workers import serve; serve()"


Progress = Callable[[int], object]
Task = TypeVar("Task")
Report = TypeVar("Report")


class _Done(NamedTuple):
    """What a worker says of a task: its report."""

    report: Any


class _Failure(NamedTuple):
    """What a worker says instead of a report: the disk's word, or a traceback."""

    refused: bool
    words: str


def write_shards(
    tasks: Iterable[ShardTask],
    workers: int,
    progress: Progress,
    held: tuple[int, ...] = (),
) -> Generator[ShardReport, None, None]:
    """Writes shards; see `run`."""
    return run(write_shard, tasks, workers, progress, held)


def run(
    function: Callable[[Task, Progress], Report],
    tasks: Iterable[Task],
    workers: int,
    progress: Progress,
    held: tuple[int, ...] = (),
) -> Generator[Report, None, None]:
    """Does tasks, in this process for one worker, else in processes of their own.

    Args:
      function: what is done with each task; of a module that imports little.
      tasks: taken one by one, as workers become free.
      workers: processes.
      progress: is told of photos that are done.
      held: open files that stay open until the last worker has ended.

    Yields:
      The report of each task, as they are finished.

    Raises:
      WriteError: if the disk takes no more.
      UserError: if a worker was killed.
    """
    if workers == 1:
        for task in tasks:
            yield function(task, progress)
        return
    with _running(function, tasks, workers, held) as said:
        while workers:
            word = said.get()
            if word is None:
                workers -= 1
            elif isinstance(word, int):
                progress(word)
            elif isinstance(word, _Done):
                yield word.report
            else:
                raise word


@contextlib.contextmanager
def _running(
    function: Callable[..., Any],
    tasks: Iterable[Any],
    workers: int,
    held: tuple[int, ...],
) -> Iterator["queue.SimpleQueue[Any]"]:
    """Runs workers and yields what they say; they are gone when it is left."""
    processes = [_start(held) for _ in range(workers)]
    waiting = _Tasks((function, task) for task in tasks)
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_drive, args=(process, waiting, said), daemon=True)
        for process in processes
    ]
    for thread in threads:
        thread.start()
    try:
        yield said
    finally:
        for process in processes:
            process.kill()
        for process, thread in zip(processes, threads, strict=True):
            thread.join()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # a task that nobody took
                    assert pipe is not None
                    pipe.close()


class _Tasks:
    """An iterator that several threads take from."""

    def __init__(self, tasks: Iterable[Any]):
        self._tasks = iter(tasks)
        self._lock = threading.Lock()

    def take(self) -> Any:
        with self._lock:
            return next(self._tasks, None)


def _start(held: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    # This very tokret, from wherever the program was started.
    root = str(Path(tokret.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        pass_fds=held,
    )


def _drive(
    process: "subprocess.Popen[bytes]",
    tasks: _Tasks,
    said: "queue.SimpleQueue[Any]",
) -> None:
    """Feeds one worker and passes on what it says; at the end says None."""
    assert process.stdin is not None and process.stdout is not None
    try:
        while (task := tasks.take()) is not None:
            _send(process.stdin, task)
            word = 0
            while isinstance(word, int):
                word = pickle.load(process.stdout)
                if isinstance(word, _Failure):
                    kind = WriteError if word.refused else RuntimeError
                    raise kind(word.words)
                said.put(word)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        status = process.wait()
        said.put(
            UserError(
                f"a process that reads photos ended by itself (status {status}; -9 is "
                "a kill, mostly for want of memory); run the same again, it goes on "
                "from there, or with fewer workers"
            )
        )
    except BaseException as error:
        said.put(error)
    else:
        said.put(None)


def _send(pipe: IO[bytes], value: Any) -> None:
    pickle.dump(value, pipe)
    pipe.flush()


def serve() -> None:
    """The worker: tasks from standard input, words on them to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    cv2.setNumThreads(1)  # there is a worker for each core
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints shall not speak into the pipe
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
    while True:
        function, task = tasks.get()
        _send(said, _done(function, task, said))


def _receive(tasks: "queue.SimpleQueue[Any]") -> None:
    """Takes tasks; when the pipe ends, so does the worker, in the middle of one."""
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _done(function: Callable[..., Any], task: Any, said: IO[bytes]) -> _Done | _Failure:
    waiting, told = 0, time.monotonic()

    def progress(photos: int) -> None:
        nonlocal waiting, told
        waiting += photos
        if time.monotonic() - told > TELL_EVERY:
            _send(said, waiting)
            waiting, told = 0, time.monotonic()

    try:
        report = function(task, progress)
    except WriteError as error:
        return _Failure(True, str(error))
    except Exception:
        return _Failure(False, traceback.format_exc())
    _send(said, waiting)
    return _Done(report)
