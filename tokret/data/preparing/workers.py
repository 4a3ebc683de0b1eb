"""Worker processes, one for each core, that write shards or check photos.

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
from tokret.data.preparing.shards import WriteError
from tokret.errors import UserError
from tokret.io.remote import cache_folder

PROGRESS_INTERVAL = 0.2  # seconds between two reports of progress
_SERVE = "from tokret.data.preparing.workers import serve; serve()"

Progress = Callable[[int], object]
Task = TypeVar("Task")
Result = TypeVar("Result")
Messages = queue.SimpleQueue[Any]  # _Done, int (progress), an exception, None (the end)


class _Done(NamedTuple):
    """A worker's message that a task is done."""

    result: Any


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    function: Callable[[Task, Progress], Result],
    tasks: Iterable[Task],
    workers: int,
    progress: Progress,
    open_files: tuple[int, ...] = (),
    stop: Callable[[], object] = lambda: None,
) -> Generator[Result, None, None]:
    """Runs tasks, in this process for one worker, else in processes of their own.

    Args:
      function: called with each task; of a module with few imports.
      tasks: taken one by one, as workers become free.
      workers: processes.
      progress: called with the number of photos that are done.
      open_files: descriptors that stay open until the last worker has ended.
      stop: ends `tasks`, in which another thread may be waiting.

    Yields:
      The result of each task, as they are finished.

    Raises:
      WriteError: if the disk is full or fails.
      UserError: if a worker was killed.
    """
    if workers == 1:
        for task in tasks:
            yield function(task, progress)
        return
    with _running(function, tasks, workers, open_files, stop) as messages:
        while workers:
            message = messages.get()
            if message is None:
                workers -= 1
            elif isinstance(message, int):
                progress(message)
            elif isinstance(message, _Done):
                yield message.result
            else:
                raise message


@contextlib.contextmanager
def _running(
    function: Callable[..., Any],
    tasks: Iterable[Any],
    workers: int,
    open_files: tuple[int, ...],
    stop: Callable[[], object],
) -> Iterator[Messages]:
    """Runs workers and yields their messages; at exit they are killed."""
    processes = [_start(open_files) for _ in range(workers)]
    waiting, lock = ((function, task) for task in tasks), threading.Lock()
    messages: Messages = queue.SimpleQueue()

    def take() -> Any:
        with lock:
            return next(waiting, None)

    threads = [
        threading.Thread(target=_drive, args=(process, take, messages), daemon=True)
        for process in processes
    ]
    for thread in threads:
        thread.start()
    try:
        yield messages
    finally:
        stop()
        for process in processes:
            process.kill()
        for process, thread in zip(processes, threads, strict=True):
            thread.join()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # a task that was not taken
                    assert pipe is not None
                    pipe.close()


def _start(open_files: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    # This very tokret, wherever the program was started.
    root = str(Path(tokret.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **cache_folder.inherited(), "PYTHONPATH": path},
        pass_fds=open_files,
    )


def _drive(
    process: "subprocess.Popen[bytes]", take: Callable[[], Any], messages: Messages
) -> None:
    """Feeds one worker and passes its messages on; the last one is None."""
    assert process.stdin is not None and process.stdout is not None
    try:
        while (task := take()) is not None:
            _send(process.stdin, task)
            message: Any = 0
            while isinstance(message, int):
                message = pickle.load(process.stdout)
                if isinstance(message, Exception):
                    raise message
                messages.put(message)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        status = process.wait()
        messages.put(
            UserError(
                f"a worker process ended unexpectedly (status {status}; -9 is a kill, "
                "mostly for lack of memory); run the same again, which resumes, or set "
                "fewer workers"
            )
        )
    except BaseException as error:
        messages.put(error)
    else:
        messages.put(None)


def _send(pipe: IO[bytes], value: Any) -> None:
    pickle.dump(value, pipe)
    pipe.flush()


def serve() -> None:
    """Runs a worker: reads tasks from standard input, writes messages to its output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    cv2.setNumThreads(1)  # there is a worker for each core
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get into the pipe
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
    while True:
        function, task = tasks.get()
        _send(output, _run_task(function, task, output))


def _receive(tasks: "queue.SimpleQueue[Any]") -> None:
    """Receives tasks; when the pipe ends, the worker exits, even during a task."""
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _run_task(
    function: Callable[..., Any], task: Any, output: IO[bytes]
) -> _Done | Exception:
    """Returns the result, or what to raise: not every error can be pickled."""
    waiting, last = 0, time.monotonic()

    def progress(photos: int) -> None:
        nonlocal waiting, last
        waiting += photos
        if time.monotonic() - last > PROGRESS_INTERVAL:
            _send(output, waiting)
            waiting, last = 0, time.monotonic()

    try:
        result = function(task, progress)
    except WriteError as error:
        return error
    except Exception:
        return RuntimeError(traceback.format_exc())
    _send(output, waiting)
    return _Done(result)
