"""Photos of a folder -> rows of an index; what is known by its content is not embedded.

Photos are read some thousands at a time, so that few padded shapes suit many of them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from tokret.data.views import select_views
from tokret.retrieval.canvases import plan_canvases
from tokret.retrieval.extraction import Embedder, extract_into
from tokret.retrieval.store.record import Images
from tokret.retrieval.view_batches import ScannedPhotos, decoding_threads, scan_photos
from tokret.runtime.progress import Progress
from tokret.search.catalogue import Catalogue
from tokret.search.catalogue_rows import PhotoEntry
from tokret.search.extractor import Extractor
from tokret.search.index_writer import IndexWriter, Limits
from tokret.search.photo_listing import Stamps
from tokret.search.photos import photo_views, read_digest
from tokret.shapes import Bool, Float, Int


def add_photos(
    writer: IndexWriter,
    extractor: Extractor,
    root: Path,
    stamps: Iterable[Stamps],
    total: int,
    limits: Limits,
) -> tuple[int, int]:
    """Adds new, changed, moved and touched photos to an index, part after part.

    Args:
      writer: of the index.
      extractor: the model.
      root: the folder of the photos.
      stamps: of the photos, some at a time.
      total: how many photos these are.
      limits: the sizes of parts and photos.

    Returns:
      How many photos were extracted, and how many were known by their content.
    """
    new = known = 0
    with Progress("extracting", total) as bar:
        for some in stamps:
            entries = recognised(writer.catalogue, root, some)
            before = {entry.name: entry for entry in writer.catalogue.photos(entries)}
            changed = [e for e in entries.values() if before.get(e.name) != e]
            writer.catalogue.put(changed)
            known += sum(not entry.is_removed for entry in changed)
            bar.update(len(entries))
            rest = {name: some[name] for name in some if name not in entries}
            bad = _extract(writer, extractor, root, rest, limits, bar)
            new += len(rest) - bad
            if entries:
                writer.commit()
    return new, known


def recognised(
    catalogue: Catalogue, root: Path, stamps: Stamps
) -> dict[str, PhotoEntry]:
    """Those of some photos whose content is in the index under any name."""
    # Only a file of the same size can be a copy.
    sizes = catalogue.known_sizes(stamp.size for stamp in stamps.values())
    likely = [name for name, stamp in stamps.items() if stamp.size in sizes]
    with ThreadPoolExecutor(decoding_threads()) as pool:
        digests = [*pool.map(read_digest, [root / name for name in likely])]
    by_digest = {
        entry.digest: entry
        for entry in catalogue.known({digest for digest in digests if digest})
    }
    return {
        name: by_digest[digest]._replace(name=name, stamp=stamps[name])
        for name, digest in zip(likely, digests, strict=True)
        if digest in by_digest
    }


def _extract(
    writer: IndexWriter,
    extractor: Extractor,
    root: Path,
    stamps: Stamps,
    limits: Limits,
    bar: Progress,
) -> int:
    """Extracts the descriptors of photos; copies of a file have one row.

    Returns how many photos have none.
    """
    names, settings = list(stamps), extractor.system.settings
    views = photo_views(root, names, settings.longest_side, limits.max_pixels)
    with Progress("reading", len(names), leave=False) as reading:
        photos = scan_photos(views, reading.update)
    writer.catalogue.put(
        PhotoEntry(names[row], stamps[names[row]], why)
        for row, why in photos.bad.items()
    )
    bar.update(len(photos.bad))
    copies: dict[str, list[int]] = {}
    for row, digest in enumerate(photos.images.digests):
        if row not in photos.bad:
            copies.setdefault(digest, []).append(row)
    if not copies:
        return len(photos.bad)
    firsts = [rows[0] for rows in copies.values()]
    files = [{names[r]: stamps[names[r]] for r in rows} for rows in copies.values()]
    chosen = ScannedPhotos(_select(photos.images, firsts), {})
    canvases = plan_canvases(chosen.sizes, settings.canvases, settings.batch_size)
    system = extractor.system
    rows = _PartWriter(writer, chosen.images, files, limits, bar)
    try:
        extract_into(
            rows,
            Embedder(system.embed, system.variables, settings),
            select_views(views, firsts),
            chosen,
            canvases,
        )
    finally:
        rows.flush()
    return len(photos.bad) + rows.num_bad


def _select(images: Images, rows: Sequence[int]) -> Images:
    columns = msgspec.structs.astuple(images)
    return Images(*(tuple(column[row] for row in rows) for column in columns))


class _PartWriter:
    """Takes descriptors, and writes a part when it is full, or when it is time."""

    def __init__(
        self,
        writer: IndexWriter,
        images: Images,
        files: Sequence[Stamps],
        limits: Limits,
        bar: Progress,
    ) -> None:
        self._writer, self._images, self._files = writer, images, files
        self._limits, self._bar = limits, bar
        self._rows: list[int] = []
        self._descriptors: list[np.ndarray] = []
        self._due = time.monotonic() + limits.seconds
        self.num_bad = 0  # photos without a descriptor

    @property
    def finished(self) -> Bool[np.ndarray, " n"]:
        """No row is written before."""
        return np.zeros(len(self._images), bool)

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Adds a batch."""
        for row, descriptor in zip(rows.tolist(), descriptors, strict=True):
            self._bar.update(len(self._files[row]))
            if row in bad:
                files = self._files[row]
                self._writer.catalogue.put(
                    PhotoEntry(name, stamp, bad[row]) for name, stamp in files.items()
                )
                self.num_bad += len(files)
                continue
            self._rows.append(row)
            self._descriptors.append(descriptor)
            if len(self._rows) >= self._limits.rows:
                self.flush()
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Writes a part of the rows that are in none yet."""
        start = time.monotonic()
        if self._rows:
            images = _select(self._images, self._rows)
            files = [self._files[row] for row in self._rows]
            descriptors = np.stack(self._descriptors).astype(np.float32)
            self._rows, self._descriptors = [], []
            self._writer.add_part(images, descriptors, files)
        end = time.monotonic()
        # The catalogue of a large index in a bucket takes longer to upload: at most 5 %
        # of the time.
        self._due = end + self._limits.seconds * max(1.0, 2 * (end - start))
