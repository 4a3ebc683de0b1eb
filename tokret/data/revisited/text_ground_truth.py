"""Ground truth of 2007: text files for 55 queries, converted to the Revisited format.

For each of 11 landmarks and 5 queries there are NAME_query.txt (a photo and a box) and
NAME_good.txt, NAME_ok.txt and NAME_junk.txt (photos, one a line). The protocol (Philbin
et al., CVPR 2007, section 4): good and ok are positive, junk is ignored. Here good
becomes `easy`, ok `hard` and junk `junk`, so that the protocol of 2007 is what the
Revisited benchmarks call Medium.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokret.data.preparing.tar_members import list_members
from tokret.data.preparing.unpacked_archives import unpack
from tokret.errors import UserError
from tokret.io.regular_files import open_file

KINDS = {"good": "easy", "ok": "hard", "junk": "junk"}
QUERIES = 5  # of each landmark
LARGEST = 2**20  # bytes of a text file
PREFIX = "oxc1_"  # of Oxford's names in NAME_query.txt alone


def query_names(landmarks: Sequence[str]) -> list[str]:
    """The names of the queries, such as `all_souls_1`."""
    return [f"{name}_{i}" for name in landmarks for i in range(1, QUERIES + 1)]


def find_texts(root: Path, landmarks: Sequence[str], archive: str) -> list[Path]:
    """Locates the text files in a folder or a folder in it, or the archive of them.

    Raises:
      UserError: if there is neither, or text files are missing.
    """
    wanted = [
        f"{query}_{kind}.txt"
        for query in query_names(landmarks)
        for kind in ("query", *KINDS)
    ]
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        found = [folder / name for name in wanted if (folder / name).is_file()]
        if len(found) == len(wanted):
            return found
        if found:
            lacking = [name for name in wanted if folder / name not in found]
            raise UserError(
                f"{folder} lacks {len(lacking)} of the ground truth's text files, the "
                f"first is {lacking[0]}"
            )
    if (root / archive).is_file():
        return [root / archive]
    raise UserError(
        f"{root} contains no ground truth: neither {wanted[0]} and the others "
        f"nor {archive}"
    )


def read_texts(paths: Sequence[Path], partial: Path) -> dict[str, str]:
    """Reads the text files, or those in an archive, by file name.

    The archive's uncompressed copy is written below `partial`.

    Raises:
      UserError: if one cannot be read.
    """
    if paths[0].suffix == ".txt":
        return {path.name: _text(path, 0, path.stat().st_size) for path in paths}
    (plain,) = unpack(paths, partial / "plain")
    return {
        member.name.rpartition("/")[2]: _text(plain, member.offset, member.size)
        for member in list_members(plain)
        if member.name.endswith(".txt")
    }


def _text(path: Path, offset: int, size: int) -> str:
    if size > LARGEST:
        raise UserError(f"{path}: {size} bytes are too many for a list of photos")
    with open_file(path) as file:
        file.seek(offset)
        return file.read(size).decode("utf-8-sig", "backslashreplace")


def to_revisited(
    texts: Mapping[str, str], landmarks: Sequence[str], photos: Collection[str]
) -> dict[str, Any]:
    """Converts the texts to the Revisited format.

    Args:
      texts: by file name.
      landmarks: of the benchmark, in order.
      photos: the names of all photos, without suffix; the database consists of them
        and of all other photos that the texts name.

    Returns:
      `imlist` in order of name, `qimlist`, and `gnd` with `bbx`, `easy`, `hard` and
      `junk`.

    Raises:
      UserError: names the file, and the line in it, that is malformed.
    """
    queries = query_names(landmarks)
    photos_and_boxes = [_query(texts, query) for query in queries]
    lists = [
        {key: _names(texts, f"{query}_{kind}.txt") for kind, key in KINDS.items()}
        for query in queries
    ]
    named = {name for entry in lists for names in entry.values() for name in names}
    names = [name for name, _ in photos_and_boxes]
    images = sorted({*photos, *named, *names})
    index = {name: i for i, name in enumerate(images)}
    gnd = [
        {"bbx": box}
        | {key: [index[name] for name in names] for key, names in entry.items()}
        for (_, box), entry in zip(photos_and_boxes, lists, strict=True)
    ]
    return {"imlist": images, "qimlist": names, "gnd": gnd}


def _lines(texts: Mapping[str, str], name: str) -> list[tuple[int, str]]:
    if name not in texts:
        raise UserError(f"the ground truth lacks {name}")
    lines = enumerate(texts[name].splitlines(), start=1)
    return [(i, line.strip()) for i, line in lines if line.strip()]


def _query(texts: Mapping[str, str], query: str) -> tuple[str, list[float]]:
    name = f"{query}_query.txt"
    lines = _lines(texts, name)
    number = r"\s+(-?\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(\w+){number * 4}", lines[0][1]) if lines else None
    if match is None or len(lines) > 1:
        raise UserError(f"{name} must be one line: PHOTO x0 y0 x1 y1")
    box = [float(side) for side in match.groups()[1:]]
    return match[1].removeprefix(PREFIX), box


def _names(texts: Mapping[str, str], name: str) -> list[str]:
    """A list of photos; repeated names (there is one) count once."""
    lines = _lines(texts, name)
    for i, line in lines:
        if not re.fullmatch(r"\w+", line):
            raise UserError(f"{name}, line {i}: {line[:40]!r} is no photo's name")
    return list(dict.fromkeys(line for _, line in lines))
