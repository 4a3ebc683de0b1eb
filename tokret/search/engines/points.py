"""The points of an engine: a descriptor each, and the photos that have it."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.names import is_valid_name, one_line
from tokret.search.catalogue_rows import ModelInfo
from tokret.shapes import Float, Shaped

ALONE = ""  # the writer of a collection that one index fills


Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class PhotoFile(msgspec.Struct, frozen=True):
    """A file of a photo, as an engine stores it."""

    path: str  # relative to the root of its index
    label: str  # the name of its folder; "" directly in the root
    size: int  # bytes
    modified: int  # ns

    def __post_init__(self) -> None:
        """Refuses paths outside the root: a report shows the photos."""
        outside = self.path.startswith("/") or ".." in self.path.split("/")
        if outside or not is_valid_name(self.path):
            raise ValueError("not the path of a photo")


class Payload(msgspec.Struct, frozen=True):
    """What an engine stores beside a descriptor."""

    digest: Digest  # of the content
    model: str  # digest of the model, as `model_digest`
    files: tuple[PhotoFile, ...]  # copies of a photo have one descriptor

    def folders(self) -> list[str]:
        """The folders of the files, and all above them, below the root."""
        found: set[str] = set()
        for file in self.files:
            parts = file.path.split("/")[:-1]
            found |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
        return sorted(found)

    def labels(self) -> list[str]:
        """The labels of the files."""
        return sorted({file.label for file in self.files})

    def fingerprint(self) -> int:
        """63 bits that change with the payload."""
        return _hash(msgspec.json.encode(self)) >> 1

    def bounded(self, limit: int) -> dict[str, Any]:
        """The payload as JSON values, with as many of the files as fit into a limit.

        Only other indexes' hits are named by it, so that none of one's own is lost.
        """
        files: list[PhotoFile] = []
        used = 200
        for file in self.files:
            used += len(msgspec.json.encode(file)) + 1
            if files and used > limit:
                break
            files.append(file)
        bounded: dict[str, Any] = msgspec.to_builtins(
            msgspec.structs.replace(self, files=tuple(files))
        )
        return bounded


class Contents(msgspec.Struct, frozen=True):
    """What a collection has, and in which form."""

    model: str  # as `model_digest`
    dimensions: int  # of the descriptors
    format: Literal["tokret 1"] = "tokret 1"

    def check(self, found: str, url: str) -> None:
        """Compares this with what a collection states, as JSON.

        Raises:
          UserError: it is another model's, or not one of tokret.
        """
        try:
            contents = msgspec.json.decode(found, type=Contents)
        except msgspec.MsgspecError as error:
            raise UserError(
                f"{url}: is no collection of tokret; name one that does not exist yet"
            ) from error
        if contents != self:
            raise UserError(
                f"{url}: has descriptors of another model ({contents.model}, not "
                f"{self.model}); name another collection, or delete this one"
            )


def read_payload(found: Any, url: str) -> Payload:
    """Checks a payload that an engine returned.

    Raises:
      UserError: it is damaged.
    """
    try:
        return msgspec.convert(found, Payload)
    except msgspec.MsgspecError as error:
        raise UserError(
            f"{url}: has a point that tokret did not write ({one_line(error)}); delete "
            "the collection, and update the index with it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class Points:
    """Some points to be added; those with the same ids are replaced."""

    ids: Shaped[np.ndarray, " n"]
    descriptors: Float[np.ndarray, "n d"]  # float32, L2-normalised
    payloads: Sequence[Payload]

    def __len__(self) -> int:
        return len(self.payloads)


class Listing(NamedTuple):
    """Which points there are: ids in order, and the fingerprints of their payloads."""

    ids: Shaped[np.ndarray, " n"]
    fingerprints: Shaped[np.ndarray, " n"]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> "Listing":
        """Sorts pairs of an id and a fingerprint."""
        table = np.array(list(pairs), np.uint64).reshape(-1, 2)
        table = table[np.argsort(table[:, 0], kind="stable")]
        return cls(table[:, 0], table[:, 1])

    def missing_from(self, other: "Listing") -> np.ndarray:
        """The ids that another listing lacks, or has with other payloads."""
        place = np.searchsorted(other.ids, self.ids)
        place[place == len(other.ids)] = 0
        if not len(other.ids):
            return self.ids
        same = (other.ids[place] == self.ids) & (
            other.fingerprints[place] == self.fingerprints
        )
        return self.ids[~same]

    def without(self, other: "Listing") -> np.ndarray:
        """The ids that are not in another listing."""
        return np.setdiff1d(self.ids, other.ids, assume_unique=True)


def point_id(digest: str, writer: str) -> int:
    """The id of a photo's point: its digest, unless several indexes fill a collection.

    There each has its own point of a content, so that none overwrites or deletes the
    paths of another; the digest is combined with the writer's name.

    Args:
      digest: of the photo, 16 hex digits.
      writer: "K/N" for a shard, or `ALONE`.
    """
    return int(digest, 16) ^ (_hash(writer.encode()) if writer != ALONE else 0)


def photo_digest_of(point: int, writer: str) -> str:
    """The digest of a photo by the id of its point, as `point_id`."""
    return f"{point ^ (_hash(writer.encode()) if writer != ALONE else 0):016x}"


def model_digest(model: ModelInfo) -> str:
    """16 hex digits of what changes descriptors."""
    fields = sorted(model.fields.items())
    what = (
        model.weights,
        model.longest_side,
        model.scales,
        fields,
    )
    return f"{_hash(msgspec.json.encode(what)):016x}"


def text_hash(text: str) -> int:
    """A signed integer of 64 bits, for engines that filter by numbers."""
    return _hash(text.encode()) - 2**63


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
