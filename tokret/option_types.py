"""Types of options: how values on a command line are read, and written in --help."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from tokret.arguments import path_problem
from tokret.io.remote.urls import is_url, local_path, shown, url_problem

TYPES = tyro.constructors.ConstructorRegistry()


@TYPES.primitive_rule
def _read_type(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Paths may begin with a tilde; tuples of plain types are written with commas."""
    if info.type in (int, float):
        kind = info.type
        return _spec(kind.__name__.upper(), kind, _reader(kind), str)
    kind, *more = get_args(info.type) or (None,)
    if info.type is Path:
        return _spec("PATH", Path, _read_path, str)
    if (
        get_origin(info.type) is not tuple
        or more != [...]
        or kind is Path
        or hasattr(kind, "__metadata__")  # a type of this module
    ):
        return None
    return _spec(
        f"{kind.__name__.upper()},...",
        tuple,
        lambda text: tuple(map(_reader(kind), filter(None, text.split(",")))),
        lambda values: ",".join(map(str, values)),
    )


def _reader(kind: type) -> Callable[[str], Any]:
    """What reads a value of a type; errors are in plain words."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"{text!r} is not {number}") from error

    return read if kind in (int, float) else kind


def _read_path(text: str) -> Path:
    if not text:
        raise ValueError("it is empty; name a file or folder")
    if problem := path_problem(text):
        raise ValueError(problem)
    return Path(text).expanduser()


def read_remote_path(text: str) -> Path:
    """Returns the path that a text names, or that of a URL's local copy.

    Raises:
      ValueError: if it is neither, or the URL's library is not installed.
    """
    if not is_url(text):
        return _read_path(text)
    if problem := url_problem(text):
        raise ValueError(problem)
    return local_path(text)


def _spec(
    metavar: str, kind: type, read: Callable[[str], Any], write: Callable[[Any], str]
) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [write(value)],
    )


# A file or folder that may be in object storage: gs://bucket/run becomes the path of
# its local copy. What it has there is fetched, or uploaded, by the command.
RemotePath = Annotated[Path, _spec("PATH|URL", Path, read_remote_path, shown)]
# A text that may have commas, for options that are given several times.
Text = Annotated[str, _spec("TEXT", str, str, str)]
