"""Makes or updates an index of a folder of photos."""

from pathlib import Path
from typing import Annotated

import tyro

from tokret.command_line import log
from tokret.search.extractor import Extractor, load_extractor
from tokret.search.indexing import update_index

SHOWN = 10  # bad photos that are named


def main(
    photos: Annotated[Path, tyro.conf.Positional],
    index: Path,
    checkpoint: Path,
    longest_side: int | None = None,
    scales: tuple[float, ...] | None = None,
    ema: bool = False,
) -> None:
    """Make or update an index of the photos below a folder.

    Photos are jpg, png, webp, gif, bmp, tiff, avif and heic, turned as their EXIF has
    it; hidden files and folders are skipped. The same command again adds new photos,
    removes those that are gone, and resumes after a kill.

    Args:
      photos: the folder of photos.
      index: the folder of the index.
      checkpoint: the folder of a run, a conversion, or one checkpoint.
      longest_side: of a photo, in pixels; None: the run's.
      scales: factors of the image size, as 1,0.7; None: the run's.
      ema: use the EMA of the weights.
    """

    def load(segments: Path) -> Extractor:
        return load_extractor(checkpoint, ema, longest_side, scales, segments, log)

    change = update_index(photos, index, load)
    for note in change.notes:
        log(f"note: {note}")
    if change.bad:
        log(f"{len(change.bad)} photos have no descriptor:")
        for name, why in list(change.bad.items())[:SHOWN]:
            log(f"  {why if name in why else f'{name}: {why}'}")
    log(
        f"{index}: {change.photos} photos ({change.new} extracted now, "
        f"{change.gone} gone)"
    )
