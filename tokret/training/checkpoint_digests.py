"""Digests of a checkpoint's files, by which every reader notices a damaged one.

Most of an Orbax file has no checksum: with one bit flipped it may be read as another
weight. So the process that commits a checkpoint adds a file, SHA256SUMS, with a line

    SHA-256  NAME

for each file, and a last line with their number and bytes, by which a list that is cut
short is noticed. Files of any number of processes and devices are all in it, and
`sha256sum -c SHA256SUMS` is the same check without tokret. It protects from failing
disks and bad copies, not from somebody who can write both a file and its digest.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

from tokret.errors import UserError
from tokret.io.regular_files import read_file
from tokret.io.remote.urls import url_of

FILE = "SHA256SUMS"
LARGEST = 2**26  # bytes; a larger list is not read
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class UnreadableError(UserError):
    """A checkpoint that is incomplete or damaged: an older one may be whole.

    Attributes:
      damage: the checkpoint, and what is wrong, without what to do.
    """

    def __init__(self, damage: str, remedy: str = "") -> None:
        """Names a damaged checkpoint, and what to do."""
        super().__init__(f"{damage}: {remedy}" if remedy else damage)
        self.damage = damage


def damaged(checkpoint: Path, reason: object) -> UnreadableError:
    """Makes the error of a damaged checkpoint."""
    why = str(reason).removeprefix(f"{checkpoint}/")  # of an error that names a file
    remedy = _remedy(checkpoint, "copy it again from where it was made, or train again")
    return UnreadableError(f"{checkpoint}: damaged ({why})", remedy)


def _remedy(checkpoint: Path, otherwise: str) -> str:
    """Returns what to do: the run may have other checkpoints."""
    is_in_run = checkpoint.parent.name == "checkpoints"
    found = checkpoint.parent.glob("[0-9]*") if is_in_run else ()
    others = [path for path in found if path.name != checkpoint.name]
    return "use another checkpoint" if others else otherwise


def write_digests(folder: Path) -> None:
    """Writes the digests of all files of a folder, and makes their content durable.

    Raises:
      OSError: if a file cannot be read or written.
    """
    lines, nbytes = [], 0
    for name, path in sorted(_files(folder).items()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
            nbytes += file.tell()
            os.fsync(file.fileno())
    lines.append(_last_line(len(lines), nbytes))
    with (folder / FILE).open("w") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def verify(checkpoint: Path, only: str | None = None) -> None:
    """Compares a checkpoint's files, or one of them, with their digests.

    Files without a digest, as a file manager may add, are no damage. A local copy of a
    checkpoint in object storage may have only the one file that is compared.

    Raises:
      UnreadableError: if a file is missing, or is not as it was written.
      UserError: if the checkpoint was made without digests.
    """
    if not has_digests(checkpoint):
        remedy = _remedy(checkpoint, "train again, or export it with that version")
        raise UserError(
            f"{checkpoint}: not verifiable, made without digests (it has no {FILE}), "
            f"perhaps by an earlier version of tokret: {remedy}"
        )
    try:
        _verify(checkpoint, only)
    except (OSError, ValueError, UserError) as error:
        raise damaged(checkpoint, error) from error


def has_digests(checkpoint: Path) -> bool:
    """Whether a checkpoint has a list of digests, whatever is in it."""
    return os.path.lexists(checkpoint / FILE)


def _verify(checkpoint: Path, only: str | None) -> None:
    expected, last = _read(checkpoint)
    files = _files(checkpoint)
    if only and url_of(checkpoint) is not None:
        _compare(only, files.get(only), expected.get(only))
        return
    missing = sorted(expected.keys() - files.keys())
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    # Before any is read: one that grew may be without end.
    nbytes = sum(files[name].stat().st_size for name in expected)
    if not expected or last != _last_line(len(expected), nbytes):
        raise ValueError(f"files of {nbytes} bytes, but {FILE} ends in {last[:80]!r}")
    for name in [only] if only else expected:
        _compare(name, files[name], expected.get(name))


def _compare(name: str, path: Path | None, digest: str | None) -> None:
    if path is None:
        raise ValueError(f"{name!r} is missing")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ValueError(f"{name!r} is not as it was written: its SHA-256 differs")


def _read(checkpoint: Path) -> tuple[dict[str, str], str]:
    """Returns the digests by name, and the last line."""
    content = read_file(checkpoint / FILE, LARGEST, follow_links=False)
    text = content.decode(errors="replace")
    *lines, last = text.splitlines(keepends=True) or [""]
    found = [_LINE.fullmatch(line.removesuffix("\n")) for line in lines]
    return {match[2]: match[1] for match in found if match}, last


def _last_line(count: int, nbytes: int) -> str:
    return f"# {count} files, {nbytes} bytes\n"


def _files(folder: Path) -> dict[str, Path]:
    """Lists the regular files of a folder but the digests; links are not followed."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if stat.S_ISREG(path.lstat().st_mode):
                found[path.relative_to(folder).as_posix()] = path
    found.pop(FILE, None)
    return found
