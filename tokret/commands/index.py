"""Makes or updates an index of a folder of photos."""

import shlex
from pathlib import Path
from typing import Annotated

import tyro

from tokret.arguments import within
from tokret.command_line import log
from tokret.data.decoding import MAX_PIXELS
from tokret.data.preparing.photo_processing import MOST_PIXELS
from tokret.errors import UserError
from tokret.names import counted, printable
from tokret.option_types import RemotePath
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled
from tokret.search.engines.index_copy import (
    copy_index,
    measure_recall,
    planned_record,
)
from tokret.search.engines.points import ALONE
from tokret.search.engines.recording import in_shard
from tokret.search.extractor import Extractor, load_copy, load_extractor
from tokret.search.index_writer import Limits
from tokret.search.indexing import Change, update_index

SHOWN = 10  # bad photos that are named


def main(
    photos: Annotated[Path | None, tyro.conf.Positional] = None,
    *,
    index: RemotePath,
    checkpoint: RemotePath | None = None,
    longest_side: int | None = None,
    scales: tuple[float, ...] | None = None,
    ema: bool = False,
    moved: bool = False,
    rebuild: bool = False,
    rehash: bool = False,
    readd: bool = False,
    max_pixels: int = MAX_PIXELS,
    to: str = "",
    shard: str = "",
    compilation_cache: str = DEFAULT,
) -> None:
    """Make or update an index of the photos below a folder.

    Photos are jpg, png, webp, gif, bmp, tiff, avif and heic, turned as their EXIF has
    it; hidden files and folders are skipped. The same command again adds new photos,
    removes those that are gone, and resumes after a kill. Photos that were only renamed
    or touched are not embedded again.

    An index is searched exactly, unless an engine searches it: --to copies it there,
    and later updates and queries use the engine too.

    Args:
      photos: the folder of photos; without it the index is only copied to its engine.
      index: the folder of the index.
      checkpoint: the folder of a run, a conversion, or one checkpoint. The index copies
        the weights, so that updates need none.
      longest_side: of a photo, in pixels; None: the run's, or the index's.
      scales: factors of the image size, as 1,0.7; None: the run's, or the index's.
      ema: use the EMA of the checkpoint's weights.
      moved: the photos of the index are in another folder now, the one given here.
      rebuild: extract all descriptors again, as by another checkpoint.
      rehash: read all photos, even those of the same size and time as before.
      readd: take in again what was removed from the index, but is still in the folder.
      max_pixels: of a photo. Above 100,000,000 photos are decoded at half their sides
        or less. Those that were refused before need --rehash.
      to: the engine that searches the index: qdrant-edge, qdrant://HOST:PORT/NAME or
        milvus://HOST:PORT/NAME; exact for none; "" for the same as before.
      shard: K/N, as 1/4: take the K-th of N parts of the photos, by their paths. N
        indexes, each on its own machine, fill one collection of a server.
      compilation_cache: folder of compiled programs; "" keeps none.
    """
    record = planned_record(index, to, shard)
    if photos is None:
        if record is None and not to:
            raise UserError(
                "photos: is missing; name a folder, or an engine to copy the index: to"
            )
        _copy(index, to, shard)
        return
    if ema and checkpoint is None:
        raise UserError("ema: is of a checkpoint; name the checkpoint too")
    keep_compiled(compilation_cache)

    def load(copy: Path | None) -> Extractor:
        if checkpoint is not None:
            return load_extractor(checkpoint, ema, longest_side, scales)
        if copy is not None:
            return load_copy(copy, longest_side, scales)
        raise UserError(
            "checkpoint: is missing, and a new index takes its weights from it; "
            "name the folder of a run or a conversion"
        )

    within("max_pixels", max_pixels, 1, MOST_PIXELS)
    change = update_index(
        photos,
        index,
        load,
        moved=moved,
        rebuild=rebuild,
        rehash=rehash,
        readd=readd,
        limits=Limits(max_pixels=max_pixels),
        chosen=in_shard(record.shard if record else ALONE),
        log=log,
    )
    for line in to_lines(change):
        log(line)
    log(f"{index}: {summary(change)}")
    if record is not None or to:
        _copy(index, to, shard)
    if change.is_first:
        own = f"--index={shlex.quote(str(index))}"
        log(f"next: tokret query PHOTO {own}, or tokret serve {own}")


def _copy(index: Path, to: str, shard: str) -> None:
    done = copy_index(index, to, shard)
    if done is None:
        log(f"{index}: is searched exactly, by no engine")
        return
    url, change = done
    log(
        f"{url}: {counted(change.points, 'photo')} ({change.added} added, "
        f"{change.deleted} deleted); copies of a photo count once"
    )
    recall = measure_recall(index)
    if recall is None:
        return
    log(
        f"{url}: recall@{recall.top} of {recall.recall:.3f}, in {recall.ratio:.2f} "
        f"times the time of the exact search ({recall.queries} photos of the index)"
    )


def to_lines(change: Change) -> list[str]:
    """What needs a look: photos without a descriptor, and damaged parts."""
    lines = [f"damaged, extracted again: {why}" for why in change.damaged]
    if change.bad:
        lines.append(f"{counted(len(change.bad), 'photo')} without a descriptor:")
    for name, why in list(change.bad.items())[:SHOWN]:
        lines.append(f"  {printable(why if name in why else f'{name}: {why}')}")
    if len(change.bad) > SHOWN:
        lines.append(f"  and {len(change.bad) - SHOWN} more")
    if change.removed:
        lines.append(
            f"{counted(change.removed, 'photo')} removed from the index before, "
            "skipped; --readd takes them in again"
        )
    return lines


def summary(change: Change) -> str:
    """The numbers of photos."""
    known = f"{change.known} known by their content, " if change.known else ""
    return (
        f"{counted(change.photos, 'photo')} ({change.new} extracted now, {known}"
        f"{change.gone} gone)"
    )
