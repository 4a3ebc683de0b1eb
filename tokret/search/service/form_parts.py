"""Forms with files (multipart/form-data), read into memory within bounds.

Starlette's own reader writes larger files to a disk and does not bound their bytes.
"""

import asyncio
import dataclasses
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from tokret.names import counted
from tokret.search.service.limits import MIB, Limits
from tokret.search.service.problems import Problem


@dataclasses.dataclass(frozen=True)
class Part:
    """A field of a form, or a file where it has a file name."""

    field: str
    content: bytes = dataclasses.field(repr=False)
    filename: str | None = None

    @property
    def text(self) -> str:
        """The value of a field.

        Raises:
          Problem: if it is not UTF-8.
        """
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise Problem(400, f"{self.field} is not UTF-8", self.field) from error


async def read_form(
    request: Request, limits: Limits, count_bytes: Callable[[int], None]
) -> list[Part]:
    """Reads the parts of a form.

    Args:
      request: its body is read to its end.
      limits: of the form.
      count_bytes: called with the size of each piece; it may raise a Problem.

    Raises:
      Problem: if it is no such form, is malformed, or exceeds a limit.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Problem(415, "the request must be multipart/form-data with a boundary")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    try:
        reader = _PartReader(boundary, limits)
        async with asyncio.timeout(limits.receive_seconds):
            await _receive(request, reader, limits, count_bytes)
    except FormParserError as error:
        raise Problem(400, "the form is malformed") from error
    except TimeoutError as error:
        seconds = f"{limits.receive_seconds:g} s"
        raise Problem(408, f"the request took longer than {seconds}") from error
    except ClientDisconnect as error:
        raise Problem(400, "the connection was closed") from error
    if not reader.complete:
        raise Problem(400, "the form ends before its last boundary")
    return reader.parts


async def _receive(
    request: Request,
    reader: "_PartReader",
    limits: Limits,
    count_bytes: Callable[[int], None],
) -> None:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body_bytes:
            raise _too_large(limits)
        count_bytes(len(chunk))
        reader.parser.write(chunk)


def _too_large(limits: Limits) -> Problem:
    return Problem(413, f"the request is larger than {limits.body_bytes / MIB:.3g} MiB")


class _PartReader:
    """Collects the parts from the parser's events."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._limits = limits
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value, self._content = bytearray(), bytearray(), bytearray()
        self._field, self._head = "", 0
        self._filename: str | None = None
        self._files = 0
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda *data: self._add_head(self._name, *data),
                "on_header_value": lambda *data: self._add_head(self._value, *data),
                "on_header_end": self._end_header,
                "on_headers_finished": self._start_content,
                "on_part_data": self._add,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        if len(self.parts) >= self._limits.parts:
            raise Problem(413, f"the form has more than {self._limits.parts} parts")
        self._headers, self._content, self._head = {}, bytearray(), 0

    def _add_head(self, to: bytearray, data: bytes, start: int, end: int) -> None:
        # Their parser takes quadratic time.
        self._head += end - start
        if self._head > self._limits.head_bytes:
            most = f"{self._limits.head_bytes} bytes"
            raise Problem(413, f"the headers of a part are larger than {most}")
        to += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _start_content(self) -> None:
        given = self._headers.get(b"content-disposition", b"").decode("latin-1")
        kind, options = parse_options_header(given)
        if kind != b"form-data" or b"name" not in options:
            raise Problem(400, "a part of the form has no name")
        self._field = options[b"name"].decode(errors="replace")[:100]
        name = options.get(b"filename")
        self._filename = None if name is None else name.decode(errors="replace")
        if name is not None:
            self._files += 1
            if self._files > self._limits.photos:
                most = counted(self._limits.photos, "photo")
                raise Problem(413, f"more than {most} at once", self._field)

    def _add(self, data: bytes, start: int, end: int) -> None:
        limits, is_file = self._limits, self._filename is not None
        most = limits.photo_bytes if is_file else limits.field_bytes
        if len(self._content) + end - start > most:
            size = f"{most / MIB:.3g} MiB" if is_file else f"{most} bytes"
            raise Problem(413, f"{self._field} is larger than {size}", self._field)
        self._content += data[start:end]

    def _end(self) -> None:
        self.parts.append(Part(self._field, bytes(self._content), self._filename))

    def _finish(self) -> None:
        self.complete = True
