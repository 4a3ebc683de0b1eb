"""What an index knows: whose descriptors it holds, and where each photo's row lies.

The descriptors themselves are in stores below INDEX/parts; `catalogue.json` is
written whole, after the store it speaks of. So whatever ends the process, the catalogue
is true.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.retrieval.store.record import read_fields
from tokret.search.photos import Stamp

FILE = "catalogue.json"
FORM = 1  # raised when older versions could not read it
NO_PART = ""  # of photos of which nothing could be described
_PART = re.compile(r"[0-9a-f]{16}")


class Entry(NamedTuple):
    """A photo of the index.

    Attributes:
      part: the store that holds its descriptor, or NO_PART.
      row: in that store.
      stamp: of the file when it was described.
      why: what is wrong with it; "" if nothing is.
    """

    part: str
    row: int
    stamp: Stamp
    why: str


@dataclasses.dataclass(frozen=True)
class Maker:
    """Whose descriptors an index holds.

    Attributes:
      checkpoint: folder of the weights.
      ema: whether the exponential moving average of the weights was taken.
      weights: digest of the weights.
      longest_side: of a photo, in pixels.
      scales: factors of the sides.
    """

    checkpoint: str
    ema: bool
    weights: str
    longest_side: int
    scales: tuple[float, ...]

    def difference(self, other: "Maker") -> str | None:
        """Names what would give other descriptors; where the weights lie would not."""
        for field in ("weights", "longest_side", "scales"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return f"{field}: {theirs} and {mine}"
        return None


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """An index without its descriptors.

    Attributes:
      root: the folder whose photos it holds.
      maker: whose descriptors they are.
      photos: by path from the root.
    """

    root: str
    maker: Maker
    photos: Mapping[str, Entry]

    def parts(self) -> list[str]:
        """The stores in use, sorted."""
        return sorted({entry.part for entry in self.photos.values()} - {NO_PART})


def write_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Writes the catalogue of an index, whole or not at all.

    Raises:
      UserError: the disk does not take it.
    """
    photos = {
        name: [entry.part, entry.row, *entry.stamp, entry.why]
        for name, entry in catalogue.photos.items()
    }
    fields = {
        "form": FORM,
        "root": catalogue.root,
        "maker": dataclasses.asdict(catalogue.maker),
        "photos": photos,
    }
    write_whole(folder / FILE, json.dumps(fields, indent=0, ensure_ascii=False) + "\n")


def read_catalogue(folder: Path) -> Catalogue:
    """Reads the catalogue of an index, believing nothing of it.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"--index={folder} is no index; make one: python -m tokret.search index "
            f"PHOTOS --checkpoint=FOLDER --index={folder}"
        )
    fields = read_fields(path)
    if fields.get("form") != FORM:
        raise UserError(
            f"{path}: form: {fields.get('form')!r} and {FORM}; another version of "
            "tokret made it: remove the folder and index again"
        )
    try:
        maker = _maker(fields["maker"])
        photos = {
            _relative(name): _entry(*values)
            for name, values in fields["photos"].items()
        }
        return Catalogue(_of_type(fields["root"], str), maker, photos)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove the folder and index again"
        ) from error


def _maker(fields: Mapping[str, Any]) -> Maker:
    return Maker(
        _of_type(fields["checkpoint"], str),
        _of_type(fields["ema"], bool),
        _of_type(fields["weights"], str),
        _of_type(fields["longest_side"], int),
        tuple(_of_type(scale, float) for scale in fields["scales"]),
    )


def _entry(part: Any, row: Any, size: Any, changed: Any, why: Any) -> Entry:
    if not _PART.fullmatch(_of_type(part, str)) and (part != NO_PART or not why):
        raise ValueError(f"{part[:40]!r} is no part's name")
    if _of_type(row, int) < 0:
        raise ValueError(f"row {row}")
    stamp = Stamp(_of_type(size, int), _of_type(changed, int))
    return Entry(part, row, stamp, _of_type(why, str))


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:40]!r} is not of type {kind.__name__}")
    return value


def _relative(name: str) -> str:
    """A path that stays below the root: reports show the photo that lies there."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"{name[:40]!r} is no photo's path")
    return name
