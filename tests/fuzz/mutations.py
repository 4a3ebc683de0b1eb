"""Mutations of files: of any bytes, and of what a format's own checks would hide.

All of them are functions (random, content, number) -> content. The same numbers give
the same mutations; consecutive ones go through all keys of a JSON file.
"""

import contextlib
import copy
import io
import json
import pickle
import random
import re
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Mutation = Callable[[random.Random, bytes, int], bytes]

DEEP = "deep below deep"  # becomes 100,000 brackets
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1),
    *(10**400, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf")),
    *(
        "",
        "a",
        "0",
        "..",
        "../../a",
        "/a",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "\ud800",
        "\u202e",
    ),
    *("x" * 70_000, [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, DEEP),
]
KEYS = ("", "a", "name", "0", "-1", "\ud800", "x" * 1000)
NUMBERS = [0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
TEXTS = [
    *(b"0", b"-1", b"1e999", b"9" * 30, b"nan", b"True", b"None", b"\xff\xfe", b"\0"),
    *(b"[" * 300, b"(" * 300, b'"', b"'", b",", b"\n", b"\r", b"\\", b"{", b"}", b" "),
    *(b"../", b"/", b"\xe2\x80\xae", b"\x1b[31m", b"\xf0\x9f\x91\xa8", b";", b":"),
]


def mutate_bytes(rng: random.Random, data: bytes, number: int) -> bytes:
    """A few flips, cuts, copies and insertions anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(rng, changed, rng.randrange(len(changed) + 1))
    return bytes(changed)


def _flip(rng: random.Random, data: bytearray, at: int) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, at: int) -> None:
    data[at : at + 1] = bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])


def _cut(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at : rng.choice((at + 1, at + rng.randrange(1, 64), len(data)))]


def _copy(rng: random.Random, data: bytearray, at: int) -> None:
    start = rng.randrange(len(data) + 1)
    data[at:at] = data[start : start + rng.choice((1, 16, 512))]


def _insert(rng: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = rng.choice((rng.choice(TEXTS), rng.randbytes(rng.randrange(1, 40))))


def _replace(rng: random.Random, data: bytearray, at: int) -> None:
    new = rng.choice(TEXTS)
    data[at : at + rng.choice((1, len(new)))] = new


def _number(rng: random.Random, data: bytearray, at: int) -> None:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(NUMBERS) % 256**size
    data[at : at + size] = value.to_bytes(size, order)


def _digits(rng: random.Random, data: bytearray, at: int) -> None:
    found = [match.span() for match in re.finditer(rb"\d+", data)]
    if found:
        start, end = rng.choice(found)
        data[start:end] = rng.choice(TEXTS[:6])


_CHANGES = [_flip, _flip, _set, _cut, _copy, _insert, _replace, _number, _digits]


def mutate_tree(rng: random.Random, tree: Any, number: int) -> Any:
    """Changes a value or a key of nested lists and dictionaries; returns a copy."""
    tree = [copy.deepcopy(tree)]
    places = list(_places(tree))
    parent, key = places[number % len(places)]
    match rng.randrange(8):
        case 0 if isinstance(parent, dict):
            parent[rng.choice(KEYS)] = parent.pop(key)
        case 0 | 1 if parent is not tree:
            del parent[key]
        case 2:
            parent[key] = [parent[key]]
        case 3:
            other, theirs = rng.choice(places)
            parent[key] = copy.deepcopy(other[theirs])
        case _:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return tree[0]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutate_json(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes a value or a key by another of any type; sometimes any bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, data, number)
    return _dumps(rng, mutate_tree(rng, json.loads(data), number))


def _dumps(rng: random.Random, tree: Any) -> bytes:
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5, allow_nan=True)
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    return text.encode("utf-8", "surrogatepass")


def mutate_pickle(rng: random.Random, data: bytes, number: int) -> bytes:
    """As `mutate_json`, of plain data in a pickle of this test's own."""
    if rng.random() < 0.5:
        return mutate_bytes(rng, data, number)
    tree = mutate_tree(rng, pickle.loads(data), number)  # noqa: S301 (of the test)
    return pickle.dumps(tree, protocol=rng.randrange(6))


def mutate_lines(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes a line of JSON; or any bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, data, number)
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(rng, lines[at], number)
    return b"".join(line + b"\n" for line in lines)


def mutate_journal(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes a line, CRC-32 and JSON, and corrects its CRC-32; or any bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, data, number)
    texts = b"".join(line.partition(b" ")[2] for line in data.splitlines(keepends=True))
    lines = mutate_lines(rng, texts, number).splitlines()
    return b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)


def mutate_npy(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes the text of an .npy header and corrects its length; or any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, number)
    (length,) = struct.unpack("<H", data[8:10])
    header = mutate_bytes(rng, data[10 : 10 + length], number)[:60_000]
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + length :]


def mutate_safetensors(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes the JSON header and corrects its length; or any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, number)
    (length,) = struct.unpack("<Q", data[:8])
    header = mutate_json(rng, data[8 : 8 + length], number)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate_tar(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes a header of a tar and corrects its checksum; or any bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, data, number)
    changed = bytearray(data)
    headers = [
        at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"
    ]
    at = rng.choice(headers)
    block = bytearray(mutate_bytes(rng, data[at : at + 512], number)[:512].ljust(512))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    changed[at : at + 512] = block
    return bytes(changed)


def mutate_zip(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes an entry of a zip and corrects its checksum; or any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, number)
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new,
    ):
        chosen = rng.choice(old.namelist()[:2] + old.namelist())
        for name in old.namelist():
            content = old.read(name)
            changed = mutate_bytes(rng, content, number) if name == chosen else content
            new.writestr(name, changed)
    return file.getvalue()


def mutate_sqlite(rng: random.Random, data: bytes, number: int) -> bytes:
    """Changes a value of a table and corrects the row's CRC-32; or any bytes.

    The last column of each table is the CRC-32 of the others.
    """
    if rng.random() < 0.4:
        return mutate_bytes(rng, data, number)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        file.deserialize(data)
        names = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        table = rng.choice(names.fetchall())[0]
        *columns, checksum = [
            name for _, name, *_ in file.execute(f"PRAGMA table_info({table})")
        ]
        rows = file.execute(f"SELECT * FROM {table}").fetchall()
        *values, _ = rng.choice(rows)
        at = rng.randrange(len(columns))
        with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError):
            new = _other_value(rng, values[at], number)
            file.execute(
                f"UPDATE {table} SET {columns[at]} = ? WHERE id = ?", (new, values[0])
            )
            values[at] = new
            crc = zlib.crc32(msgspec.msgpack.encode(values))
            file.execute(
                f"UPDATE {table} SET {checksum} = ? WHERE id = ?", (crc, values[0])
            )
        return file.serialize()


def _other_value(rng: random.Random, value: Any, number: int) -> Any:
    """A value of SQLite: the same in part, or another one."""
    if isinstance(value, bytes) and rng.random() < 0.5:
        return mutate_bytes(rng, value, number)
    if isinstance(value, str) and value[:1] == "{" and rng.random() < 0.7:
        return mutate_json(rng, value.encode(), number).decode(errors="replace")
    plain = [v for v in VALUES if v is None or isinstance(v, int | float | str)]
    return rng.choice([*plain, b"", b"\0" * 16, b"\xff"])
