"""What a service takes at most: of requests, photos, time and memory."""

import dataclasses
import os

from tokret.data.decoding import MAX_PIXELS

MIB = 2**20


def _default_decoders() -> int:
    return max(2, min(4, len(os.sched_getaffinity(0))))


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a service; what exceeds one is refused with a status of HTTP."""

    # Of a request (413, 408).
    body_bytes: int = 128 * MIB
    photo_bytes: int = 32 * MIB
    field_bytes: int = 8192
    head_bytes: int = 8192  # of the headers of a part
    parts: int = 128
    photos: int = 16
    receive_seconds: float = 60.0
    # Of all requests at once (429).
    requests: int = 64  # that are searched or added
    pictures: int = 512  # that are waiting to be decoded
    bytes_in_progress: int = 512 * MIB
    # Of the decoding of a photo (422).
    pixels: int = MAX_PIXELS
    decode_seconds: float = 10.0
    decode_bytes: int = 2048 * MIB  # of memory, beyond a worker's own
    decoders: int = dataclasses.field(default_factory=_default_decoders)
    # Of batches: how many photos, and how long the first of them waits for others that
    # are being decoded.
    batch: int = 8
    batch_wait: float = 0.004  # seconds
    # Of what is kept in memory; the least recently used goes first.
    uploads: int = 1000
    upload_bytes: int = 256 * MIB
    picture_bytes: int = 128 * MIB
    descriptors: int = 10_000
    sizes: int = 200_000
    # Of answers.
    top: int = 200
    depth: int = 10_000  # of a search: offset + top
    # Of the end of the service: how long running requests may take.
    stop_seconds: int = 20
