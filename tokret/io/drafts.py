"""Names of drafts, and the removal of those that killed processes left.

A draft is written beside its file or folder, and gets that name in the end. Its own
name has the writer's PID, and a digest of what PIDs are valid in: a folder may be on a
disk that several hosts and containers write to.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import time
from pathlib import Path

_WRITER = r"([0-9a-f]{8})-(\d{1,9})"  # its scope and PID
STALE = 24 * 3600  # seconds until a draft of another host or container is removed


def make_draft(path: Path) -> Path:
    """Returns the name of this process's draft; removes drafts that were left.

    A draft was left if its process has ended or, of another host or container, if it
    was not changed for `STALE` seconds. Those of other users stay.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{_WRITER}")
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            match = pattern.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if match and _is_left(os.lstat(entry.path), match[1], int(match[2])):
                    _remove(entry.path)
    return path.with_name(f".{path.name}.{own_scope()}-{os.getpid()}")


def _is_left(info: os.stat_result, scope: str, pid: int) -> bool:
    if info.st_uid != os.geteuid():
        return False
    if scope != own_scope():
        return time.time() - info.st_mtime > STALE
    return pid != os.getpid() and not is_running(pid)


def is_draft(name: str) -> bool:
    """Whether a file's name is that of a draft, of any process."""
    return re.fullmatch(rf"\..+\.{_WRITER}", name) is not None


def is_running(pid: int) -> bool:
    """Whether a process of this host and container has a PID."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


@functools.cache
def own_scope() -> str:
    """A digest of host, boot and container: within them, PIDs name processes."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]
