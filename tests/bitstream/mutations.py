"""Ways to damage a ``.codes`` file."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

# Offset and size of each header field, as the format document has them.
FIELDS = {
    "magic": (0, 4),
    "version": (4, 1),
    "coding": (5, 1),
    "channels": (6, 1),
    "codes_id": (7, 6),
    "sample_rate": (13, 3),
    "codebook": (16, 3),
    "samples": (19, 5),
    "frames": (24, 4),
}


def with_crc(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body))


def flip_bits(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def change_bytes(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 9))


def delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 9)]


def splice(rng: random.Random, data: bytearray) -> None:
    """Copy one stretch of the file over another place, keeping the length or not."""
    start, end = sorted(rng.choices(range(len(data) + 1), k=2))
    at = rng.randint(0, len(data))
    data[at : at + rng.choice([0, end - start])] = data[start:end]


def edit_field(rng: random.Random, data: bytearray) -> None:
    offset, size = rng.choice(list(FIELDS.values()))
    old = int.from_bytes(data[offset : offset + size], "big")
    top = 256**size - 1
    new = rng.choice([0, 1, top, rng.randint(0, top), max(old - 1, 0), min(old + 1, top)])
    data[offset : offset + size] = new.to_bytes(size, "big")


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [
    flip_bits,
    change_bytes,
    insert,
    delete,
    splice,
    edit_field,
]
