"""A run's folder: locked against other runs, and watched for its removal.

A folder in object storage is locked by a lease. To remove the folder removes the lease
too, which is noticed within seconds; the removal of single files in it is not.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.io.remote.leases import leased
from tokret.io.remote.retrying import at_once
from tokret.io.remote.urls import url_of
from tokret.runtime import cluster
from tokret.training.checkpoints import list_steps
from tokret.training.remote_runs import fetch_run

# What a run keeps in it from its start to its end.
CONTENTS = ("checkpoints", "config.json", "metrics.jsonl")
LOCK, LEASE = ".lock", ".lease"
DELETED = " (deleted)"  # ends the system's name of a folder that was removed


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[Callable[..., bool]]:
    """Keeps other runs out of a folder; the lock ends with the process.

    In object storage it expires a minute after a process that was killed.

    Yields what returns whether the lock is still there, as `held`.

    Raises:
      UserError: if another run is training in it.
      StorageError, UnavailableError: as `objects` does.
    """
    refusal = f"another run is training in {workdir}; stop it, or choose another folder"
    url = url_of(workdir)
    if url is None:
        lock = held(workdir / LOCK, refusal)
    else:
        lock = leased(f"{url}/{LEASE}", refusal, functools.partial(_print_note, url))
    with lock as is_locked:
        yield is_locked


def _print_note(url: str, line: str) -> None:
    print(f"note: {url}: {line}", file=sys.stderr, flush=True)  # noqa: T201


class Workdir:
    """The folder of a run. A context manager, used by the first process alone.

    The run has files open, and Orbax makes what is missing: without a look at the
    folder, one that was removed or moved would be noticed by nobody.
    """

    def __init__(self, path: Path):
        """Names a folder, which is created on entry if it is missing."""
        self._path = path
        self._is_remote = url_of(path) is not None
        self._seen: set[str] = set()

    def __enter__(self) -> "Workdir":
        """Creates the folder and locks it, as `lock_workdir`.

        The local copy of one in object storage then has the small files of the run.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            if cluster.is_first():
                self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
                opened.callback(os.close, self._folder)
                self._is_locked = opened.enter_context(lock_workdir(self._path))
            if self._is_remote:
                cluster.wait("the workdir is locked")
                fetch_run(self._path)
                self._compare_steps()
            self._closing = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Checks the folder: its removal explains other errors, and matters more."""
        with self._closing:
            if kind is None or issubclass(kind, (UserError, OSError)):
                self.check()

    def _compare_steps(self) -> None:
        """Checks that all processes resume alike: each has listed the bucket itself."""
        steps = " ".join(map(str, list_steps(self._path)))
        digest = hashlib.sha256(steps.encode()).hexdigest()
        if len({*cluster.gather_texts(digest)}) > 1:
            raise UserError(
                f"workdir: the checkpoints in {self._path} changed while the processes "
                "of this run listed them; start it again"
            )

    def check(self, *, now: bool = False) -> None:
        """Checks that the folder, its lock and what was in it are still there.

        With `now` a lease is read, not only what was seen of it last.

        Raises:
          UserError: if not; it names the checkpoints that are left.
        """
        if not cluster.is_first():
            return
        if not self._is_remote:
            self._check_folder()
        if not self._is_locked(now=now):
            name, taken = (LEASE, " or taken") if self._is_remote else (LOCK, "")
            raise UserError(
                f"workdir: {self._path / name} was removed{taken} while the run was "
                "training, so another run may have started there and this one ends; "
                f"{_checkpoints_left(self._path)}"
            )

    def _check_folder(self) -> None:
        try:
            is_same = os.path.samestat(os.stat(self._path), os.fstat(self._folder))
        except OSError:
            is_same = False
        if not is_same:
            self._fail_without_folder()
        found = {name for name in CONTENTS if (self._path / name).exists()}
        lost = sorted(self._seen - found)
        self._seen |= found
        if lost:
            raise UserError(
                f"workdir: {', '.join(lost)} in {self._path} "
                f"{'was' if len(lost) == 1 else 'were'} removed while the run was "
                f"training; {_checkpoints_left(self._path)}"
            )

    def _fail_without_folder(self) -> NoReturn:
        now = DELETED
        with contextlib.suppress(OSError):  # not Linux
            now = os.readlink(f"/proc/self/fd/{self._folder}")
        if now.endswith(DELETED):
            raise UserError(
                f"workdir: {self._path} was removed or replaced while the run was "
                f"training; {_checkpoints_left(self._path)}"
            )
        raise UserError(
            f"workdir: {self._path} was moved to {now} while the run was training; "
            f"{_checkpoints_left(Path(now))}: name that folder to resume"
        )


def _checkpoints_left(workdir: Path) -> str:
    with contextlib.suppress(UserError), at_once():
        fetch_run(workdir)
    steps = list_steps(workdir)
    if not steps:
        return f"no checkpoint is in {workdir}: the same command starts again"
    listed = ", ".join(map(str, steps))
    return f"{workdir / 'checkpoints'} has those of step {listed}"
