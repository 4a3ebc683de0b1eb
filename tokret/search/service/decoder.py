"""Worker processes that decode photos, each photo within a time limit.

Each worker has pipes of its own: one that hangs, crashes or is killed costs one photo,
and is replaced. (The process pools of multiprocessing and pebble have one pipe and its
lock: a worker that dies can break the pool.)
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import tokret
from tokret.search.service.decoding_worker import (
    GONE,
    PREFIX,
    DecodedView,
    PhotoInfo,
    Source,
    pack,
)
from tokret.search.service.limits import Limits
from tokret.search.service.problems import Problem

_SERVE = "from tokret.search.service.decoding_worker import serve; serve({})"
Answer = TypeVar("Answer")


def _environment() -> dict[str, str]:
    """That of a worker, which needs no secret."""
    return {k: v for k, v in os.environ.items() if k != "TOKRET_TOKEN"}


class _Worker:
    """A process, and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def call(self, message: bytes) -> bytes:
        """Sends a message and returns the answer's body."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(message)
        await self.process.stdin.drain()
        prefix = await self.process.stdout.readexactly(PREFIX)
        return await self.process.stdout.readexactly(int.from_bytes(prefix, "little"))


class Decoder(contextlib.AbstractAsyncContextManager["Decoder"]):
    """A pool of workers; used in one event loop."""

    def __init__(
        self, limits: Limits, failed: Callable[[str], None] = lambda why: None
    ) -> None:
        """Takes the limits, and what is called with the kind of each failure."""
        self._limits, self._failed = limits, failed
        self.program = _SERVE.format(limits.decode_bytes)
        self._workers: set[_Worker] = set()
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        # Queries need not wait for the pictures of a whole page.
        self._pictures = asyncio.Semaphore(max(1, limits.decoders - 1))
        self._waiting_pictures = 0

    async def __aenter__(self) -> "Decoder":
        """Starts the workers; an item of None stands for one that has to be started."""
        for _ in range(self._limits.decoders):
            self._idle.put_nowait(await self._start())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the workers, also while they decode."""
        await asyncio.gather(*(self._end(worker) for worker in [*self._workers]))

    def pids(self) -> list[int]:
        """The workers' processes."""
        return [worker.process.pid for worker in self._workers]

    async def view(
        self, source: Source, box: tuple[float, ...] | None, longest_side: int
    ) -> DecodedView:
        """Decodes a view.

        Raises:
          Problem: 422 if it cannot be decoded within the limits, 404 if it is gone.
        """
        arguments = [box, longest_side, self._limits.pixels]
        return await self._call("decode_view", source, arguments, DecodedView)

    async def inspect(self, source: Source, longest_side: int) -> PhotoInfo:
        """Decodes a photo to its end; problems as of `view`."""
        arguments = [longest_side, self._limits.pixels]
        return await self._call("inspect", source, arguments, PhotoInfo)

    async def picture(self, source: Source, side: int) -> bytes:
        """Makes a picture; problems as of `view`, and 429 if too many are waiting."""
        if self._waiting_pictures >= self._limits.pictures:
            raise Problem(429, "too many pictures are being decoded", retry_after=1)
        self._waiting_pictures += 1
        try:
            async with self._pictures:
                arguments = [side, self._limits.pixels]
                return await self._call("picture", source, arguments, bytes)
        finally:
            self._waiting_pictures -= 1

    async def sizes(
        self, root: str, names: Sequence[str]
    ) -> list[tuple[int, int] | None]:
        """Widths and heights of photos below a root; None of those that are gone."""
        source = Source(root=root, names=[*names])
        kind = list[tuple[int, int] | None]
        return await self._call("sizes", source, [self._limits.pixels], kind)

    async def _call(
        self, name: str, source: Source, arguments: list[Any], kind: type[Answer]
    ) -> Answer:
        message = pack((name, source, arguments))
        worker = await self._idle.get()
        try:
            if worker is not None and worker.process.returncode is not None:
                await self._end(worker)
                worker = None
            worker = worker or await self._start()
            async with asyncio.timeout(self._limits.decode_seconds):
                body = await worker.call(message)
        except BaseException as error:
            # The answer to this photo would be taken for that to the next one.
            if worker is not None:
                await asyncio.shield(self._end(worker))
            worker = None
            raise self._problem(error) from error
        finally:
            self._idle.put_nowait(worker)
        result, why = msgspec.msgpack.decode(body, type=tuple[kind | None, str])  # type: ignore[valid-type]
        if result is None:
            self._failed("refused")
            if why == GONE:
                raise Problem(404, "the photo's file was changed, moved or removed")
            raise Problem(422, why, "photo")
        return result

    def _problem(self, error: BaseException) -> BaseException:
        """What is raised for a worker that gave no answer."""
        if isinstance(error, TimeoutError):
            self._failed("time")
            return Problem(422, "the photo takes too long to decode", "photo")
        if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
            self._failed("worker ended")
            return Problem(422, "the photo ends its decoder; save it again", "photo")
        return error

    async def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        with contextlib.suppress(ProcessLookupError):
            worker.process.kill()
        await worker.process.wait()
        if worker.process.stdin is not None:
            worker.process.stdin.close()

    async def _start(self) -> _Worker:
        # This very tokret, wherever the program was started.
        root = str(Path(tokret.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        worker = _Worker(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", self.program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment() | {"PYTHONPATH": path},
            )
        )
        self._workers.add(worker)
        return worker
