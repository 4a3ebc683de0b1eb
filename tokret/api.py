"""The public API: descriptors and attention maps of photos, and queries to an index.

`tokret` itself exports these names, and imports this module only when they are used.
"""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tokret.arguments import choose, path_problem, url_problem, within
from tokret.data.decoding import MAX_PIXELS
from tokret.data.preparing.photo_processing import MOST_PIXELS
from tokret.data.views import Box, LazyViews, View
from tokret.errors import UserError
from tokret.io.remote.fetching import require
from tokret.io.remote.urls import check_url, is_url, local_path, with_urls
from tokret.retrieval.extraction import extract
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled
from tokret.search.catalogue import WEIGHTS
from tokret.search.extractor import Extractor, load_copy, load_extractor
from tokret.search.filters import Filters
from tokret.search.photos import view_of
from tokret.search.queries import Query, SearchOptions, SearchResults, check_box
from tokret.search.querying import search_photos
from tokret.search.remote_index import fetched_catalogue
from tokret.search.searcher import Searcher
from tokret.shapes import Float

# Arrays are uint8 [height, width, 3], each of its own size.
Photo = str | os.PathLike[str] | np.ndarray


@contextlib.contextmanager
def _naming_urls() -> Iterator[None]:
    """Errors name URLs, not the paths of their local copies."""
    try:
        yield
    except UserError as error:
        words = with_urls(str(error))
        if words == str(error):
            raise
        raise UserError(words) from error


class Model:
    """A restored model, from `tokret.load`."""

    def __init__(self, extractor: Extractor, max_pixels: int = MAX_PIXELS) -> None:
        """Wraps a restored model."""
        self._system = extractor.system
        self._max_pixels = within("max_pixels", max_pixels, 1, MOST_PIXELS)

    def __repr__(self) -> str:
        """Names the model, and how photos are scaled."""
        model, settings = self._system.model, self._system.settings
        scales = ", ".join(f"{scale:g}" for scale in settings.scales)
        return (
            f"<tokret.Model: {model['head']} over {model['trunk']}, longest side "
            f"{settings.longest_side}, scales {scales}>"
        )

    @_naming_urls()
    def embed(self, photos: Sequence[Photo]) -> Float[np.ndarray, "n d"]:
        """Extracts descriptors.

        Photos of different sizes are batched together: they are padded, and the padding
        is masked, so that a descriptor is that of the photo alone.

        Args:
          photos: N paths, turned upright by their EXIF, or uint8 RGB arrays
            [height, width, 3]. Larger photos are shrunk to the model's longest side.

        Returns:
          [N, D] float32, L2-normalised: their dot products are cosine similarities.

        Raises:
          UserError: if there are no photos, one cannot be read, or an array has another
            shape or dtype.

        Example:
          >>> import numpy as np, tokret
          >>> model = tokret.load("runs/demo")
          >>> photo = np.zeros((40, 30, 3), np.uint8)
          >>> descriptors = model.embed(["query.jpg", photo])
          >>> descriptors.shape[0], descriptors.dtype
          (2, dtype('float32'))
        """
        views = self._views(photos)
        system = self._system
        # Full batches; a few photos compute no more than they need.
        most = min(system.settings.batch_size, 1 << (len(views) - 1).bit_length())
        settings = dataclasses.replace(system.settings, batch_size=most)
        found = extract(system.embed, system.variables, views, settings)
        return found.astype(np.float32)

    @_naming_urls()
    def attention(self, photos: Sequence[Photo]) -> list[Float[np.ndarray, "l h w"]]:
        """Computes the attention maps of the model's tokens (paper, section 3.3).

        Args:
          photos: as for `embed`.

        Returns:
          Of each photo [L, h, w] float32, L the number of tokens and h, w the size of
          the last feature map. At each position they sum to 1.

        Raises:
          UserError: as for `embed`, or if the model's head has no attention maps.

        Example:
          >>> import tokret
          >>> (maps,) = tokret.load("runs/demo").attention(["query.jpg"])
          >>> maps.ndim
          3
        """
        found = self._system.token_maps(self._views(photos))
        if found is None:
            raise UserError(f"head {self._system.model['head']} has no attention maps")
        return found

    def _views(self, photos: Sequence[Photo]) -> LazyViews:
        listed = isinstance(photos, Sequence) or np.ndim(photos) > 0
        if isinstance(photos, str | bytes) or not listed:
            raise UserError(
                f"photos is a {type(photos).__name__}; give a list of paths or arrays"
            )
        if not len(photos):
            raise UserError("photos is empty; name one or more")
        for i, photo in enumerate(photos):
            if isinstance(photo, np.ndarray):
                is_rgb = photo.ndim == 3 and photo.shape[2] == 3 and photo.size
                if photo.dtype != np.uint8 or not is_rgb:
                    raise UserError(
                        f"photos[{i}] is {photo.dtype} {list(photo.shape)}; it must be "
                        "uint8 [height, width, 3]"
                    )
            elif not isinstance(photo, str | os.PathLike):
                raise UserError(
                    f"photos[{i}] is a {type(photo).__name__}; it must be a path or an "
                    "array"
                )
        return LazyViews(len(photos), lambda i: self._view(photos[i], f"photos[{i}]"))

    def _view(self, photo: Photo, name: str) -> View:
        """Reads a file, as `view_of`, or encodes an array without loss."""
        side = self._system.settings.longest_side
        if isinstance(photo, np.ndarray):
            encoded = io.BytesIO()
            Image.fromarray(photo).save(encoded, "PNG", compress_level=0)
            return View(encoded.getvalue(), name, None, side)
        shown = str(photo)
        path = require(_path(photo, name)) if is_url(shown) else Path(photo)
        return view_of(path, shown or name, side, self._max_pixels)


def _path(value: Any, argument: str) -> Path:
    """Returns a path that was given as an argument; that of a URL's local copy.

    Raises:
      UserError: if it is none, or a URL that cannot be used.
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{argument} is a {type(value).__name__}; it must be a path")
    text = os.fspath(value)
    if is_url(text):
        check_url(text, argument)
        return local_path(text)
    if problem := path_problem(text):
        raise UserError(f"{argument}: {problem}")
    return Path(value).expanduser()


class Index:
    """An index of photos, from `tokret.open_index`.

    Attributes:
      names: its photos that have descriptors, by path relative to `root`.
      root: the folder of its photos.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        """Opens an index as `open_index`; the first query reads it."""
        if root is not None and not root.is_dir():
            raise UserError(f"root={root} is not a folder; name that of the photos")
        with fetched_catalogue(folder) as catalogue:
            self._num_photos = catalogue.num_photos()
            self.root = Path(catalogue.root) if root is None else root
        self._folder, self._is_moved = folder, root is not None

        @functools.cache
        def load(copy: str) -> Extractor:
            return load_copy(folder / WEIGHTS / copy)

        self._load = load

    def __repr__(self) -> str:
        """Names the folder of the photos, and how many have descriptors."""
        return f"<tokret.Index: {self._num_photos} photos of {self.root}>"

    @functools.cached_property
    def names(self) -> list[str]:
        """The paths of the photos relative to the root, sorted."""
        with fetched_catalogue(self._folder) as catalogue:
            return [entry.name for entry in catalogue.entries() if entry.part]

    @functools.cached_property
    def _searcher(self) -> Searcher:
        return self.searcher()

    def searcher(self, *, hold: bool = True, engine: str = "") -> Searcher:
        """Reads the index for searches by descriptors; see `Searcher`."""
        root = self.root if self._is_moved else None
        return Searcher(self._folder, self._load, root=root, engine=engine, hold=hold)

    @_naming_urls()
    def query(
        self,
        photo: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        top: int = 20,
        box: Box | None = None,
        max_pixels: int = MAX_PIXELS,
        *,
        unlike: Sequence[str | os.PathLike[str]] = (),
        folders: Sequence[str] = (),
        labels: Sequence[str] = (),
        leave_out_query: bool = False,
        near_duplicates: Literal["show", "hide"] = "show",
    ) -> SearchResults:
        """Retrieves the photos that are most similar to a photo.

        The first query reads the descriptors into memory; later ones notice what has
        changed in the index.

        Args:
          photo: the path of the query, which may be in the index; of several photos the
            results resemble all.
          top: how many to retrieve.
          box: x0, y0, x1, y1 in pixels of the upright photo, or of the first: the part
            of it to search for; None: all of it.
          max_pixels: that a photo may have, as of `load`.
          unlike: paths of photos that results should not resemble.
          folders: search only photos in these folders or below, paths from the root.
          labels: search only photos whose own folder has one of these names.
          leave_out_query: skip photos with the same content as the query's.
          near_duplicates: "hide" skips photos nearly the same as a better hit.

        Returns:
          The hits, the best first, each with `name` and `score`, the cosine similarity,
          and with the photo's `id` and `label`;
          `hits`, a list of them;
          `gone`, the names of hits that are not in `root` any more; the times taken.

        Raises:
          UserError: if a photo cannot be read, the box is not inside it, or the
            index is damaged.

        Example:
          >>> import tokret
          >>> index = tokret.open_index("runs/index")
          >>> best = index.query("query.jpg", top=1)[0]
          >>> best.name in index.names
          True
        """
        several = photo if isinstance(photo, list | tuple) else [photo]
        if not several:
            raise UserError("photo is empty; name one or more")
        photos = [require(_path(each, "photo")) for each in several]
        others = [require(_path(each, "unlike")) for each in unlike]
        if not isinstance(top, int):
            raise UserError(f"top is {top!r}; it must be a whole number")
        part = None if box is None else check_box(box, box)
        within("max_pixels", max_pixels, 1, MOST_PIXELS)
        choose(dict.fromkeys(("show", "hide")), near_duplicates, "near_duplicates")
        options = SearchOptions(
            top,
            Filters(tuple(folders), tuple(labels)),
            leave_out_query,
            near_duplicates == "hide",
        )
        self._searcher.refresh()
        query = Query(tuple(photos), tuple(others), part)
        (results,) = search_photos(self._searcher, [query], options, max_pixels)
        return results


@_naming_urls()
def load(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    longest_side: int | None = None,
    scales: Sequence[float] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Model:
    """Restores a model.

    Compiled programs are kept in ~/.cache/tokret, unless jax has a folder for them.

    Args:
      path: the folder of a run of `tokret train`, whose newest checkpoint is taken, of
        a conversion by `tokret convert`, or of one checkpoint.
      ema: take the EMA of the weights.
      longest_side: of a photo, in pixels; None: the run's.
      scales: factors of the image size; the normalised mean of their descriptors is the
        result. None: the run's.
      max_pixels: that a photo's file may have. Above 100 million it is decoded at half
        its sides or less.

    Raises:
      UserError: if there is no checkpoint, it is damaged, or a value is out of range.

    Example:
      >>> import tokret
      >>> model = tokret.load("runs/demo", scales=[1.0])
      >>> model.embed(["query.jpg"]).shape[0]
      1
    """
    _cache_programs()
    if not (scales is None or np.ndim(scales) == 1):
        raise UserError(f"scales is {scales!r}; it must be a list of numbers")
    extractor = load_extractor(_path(path, "path"), ema, longest_side, scales)
    return Model(extractor, max_pixels)


@_naming_urls()
def open_index(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> Index:
    """Opens an index that `tokret index` made.

    Compiled programs are kept as by `load`.

    Args:
      path: the index's folder.
      root: the folder where its photos are now; None: where they were indexed.

    Raises:
      UserError: if it is not an index, or `root` is not a folder.
    """
    _cache_programs()
    if root is not None and (problem := url_problem(os.fspath(root))):
        raise UserError(f"root: {problem}")
    folder = None if root is None else _path(root, "root")
    if folder is not None and not folder.is_dir():
        raise UserError(f"root={root} is not a folder; name that of the photos")
    return Index(_path(path, "path"), folder)


def _cache_programs() -> None:
    """Keeps compiled programs for later processes, where there is a place for them."""
    with contextlib.suppress(UserError):
        keep_compiled(DEFAULT)
