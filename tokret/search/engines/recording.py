"""What an index records of its engine, in its catalogue."""

import secrets
from collections.abc import Callable

import msgspec

from tokret.errors import UserError
from tokret.search.catalogue import Catalogue
from tokret.search.catalogue_rows import Token
from tokret.search.engines.opening import EXACT, SERVERS, check_engine
from tokret.search.engines.points import ALONE, text_hash


class EngineRecord(msgspec.Struct, frozen=True):
    """The engine of an index; it has one at most."""

    url: str
    identity: Token  # of the index in the engine
    shard: str = ALONE  # "K/N", where several indexes fill a collection

    def token(self, changes: str) -> str:
        """What an engine records once it has all of the index at some time."""
        return f"{self.identity}:{changes}"


def recorded_engine(catalogue: Catalogue) -> EngineRecord | None:
    """The engine of an index; None where it is searched exactly.

    Raises:
      UserError: what is recorded is damaged.
    """
    for url, found in catalogue.engines.items():
        try:
            return msgspec.convert({"url": url, **found}, EngineRecord)
        except (TypeError, msgspec.MsgspecError) as error:
            raise UserError(
                f"{catalogue.path}: its engine is damaged ({error}); update the index "
                f"with to={EXACT}, and again with the engine"
            ) from error
    return None


def chosen_engine(catalogue: Catalogue, engine: str) -> EngineRecord | None:
    """The engine that searches an index.

    Args:
      catalogue: of the index.
      engine: a URL, `EXACT`, or "" for the one that is recorded.

    Returns:
      None for the exact search.

    Raises:
      UserError: the engine does not have the index, or cannot be used.
    """
    if engine:
        check_engine(engine, "engine")
    if engine == EXACT:
        return None
    record = recorded_engine(catalogue)
    if engine and (record is None or record.url != engine):
        raise UserError(
            f"engine={engine} does not have the index; copy it there first: "
            f"tokret index --index={catalogue.path.parent} --to={engine}"
        )
    if record is not None:
        check_engine(record.url, "engine")
    return record


def next_record(
    record: EngineRecord | None, url: str, shard: str
) -> EngineRecord | None:
    """What is recorded when an index is copied to an engine.

    Args:
      record: what is recorded before.
      url: of the engine; "" for the same; `EXACT` for none.
      shard: "K/N"; "" for the same.

    Raises:
      UserError: the engine cannot be used, or the shard is another one.
    """
    if url:
        check_engine(url, "to")
    url = url or (record.url if record else EXACT)
    if shard:
        parse_shard(shard)
        if url.partition("://")[0] not in SERVERS:
            raise UserError(
                f"shard={shard}: is of a collection that several indexes fill; name "
                "the server with to"
            )
        if record and record.shard != shard:
            raise UserError(
                f"shard={shard}: the index is "
                + (f"shard {record.shard}" if record.shard else "of all photos")
                + "; name another index"
            )
    if url == EXACT:
        return None
    if record and record.url == url:
        return record
    shard = shard or (record.shard if record else ALONE)
    return EngineRecord(url, secrets.token_hex(8), shard)


def parse_shard(shard: str) -> tuple[int, int]:
    """Reads K/N, K from 1 to N.

    Raises:
      UserError: it is something else.
    """
    first, _, last = shard.partition("/")
    valid = first.isdecimal() and last.isdecimal() and len(shard) <= 20
    if not valid or not 1 <= int(first) <= int(last) or shard != _canonical(shard):
        raise UserError(f"shard={shard[:40]} must be K/N, such as 1/4, K from 1 to N")
    return int(first), int(last)


def _canonical(shard: str) -> str:
    first, _, last = shard.partition("/")
    return f"{int(first)}/{int(last)}"


def in_shard(shard: str) -> Callable[[str], bool]:
    """Whether a path, relative to the root, is of a shard; stable when others come."""
    if shard == ALONE:
        return lambda path: True
    number, count = parse_shard(shard)
    return lambda path: text_hash(path) % count == number - 1
