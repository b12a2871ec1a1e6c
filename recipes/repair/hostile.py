"""Give a decoder of datagrams mutated packets, and time the worst.

    python recipes/repair/hostile.py --packets 100000

Half are mutated as they are, and their checksums betray them; the other half have checksums that
fit again, as a forger would send them. Any exception, or a packet that takes more than --stall
seconds, ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import random
import struct
import time
import zlib
from binascii import crc_hqx

import numpy as np
import torch

from simvq_audio.codec import Codec
from simvq_audio.codec.datagrams import DatagramDecoder, DatagramEncoder

HEADER, CRC = 14, 4


def mutated(rng: random.Random, packet: bytes) -> bytearray:
    """Changed, removed and added bytes."""
    data = bytearray(packet)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data))
        data[at] = rng.choice([0, 255, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)])
    if rng.random() < 0.2:
        at = rng.randrange(len(data))
        del data[at : at + rng.randint(1, 20)]
    if rng.random() < 0.2:
        at = rng.randrange(len(data) + 1)
        data[at:at] = rng.randbytes(rng.randint(1, 20))
    return data


def forged(rng: random.Random, packet: bytes) -> bytes:
    """A mutated packet with sync, version, length and checksums as they should be."""
    data = mutated(rng, packet)
    if len(data) < HEADER + CRC:
        return bytes(data)
    data[:3] = b"SV\x01"
    data[10:12] = struct.pack(">H", len(data) - HEADER - CRC)
    data[12:14] = struct.pack(">H", crc_hqx(bytes(data[:12]), 0))
    data[-CRC:] = struct.pack(">I", zlib.crc32(bytes(data[:-CRC])))
    return bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--stall", type=float, default=10.0, help="seconds for one packet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(arguments.seed)
    codec = Codec.load(device="cpu")
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 48_000)).astype("f4")
    good: list[bytes] = []
    for coding in ("fixed", "entropy"):
        encoder = DatagramEncoder(codec, 24_000, coding=coding, packet_ms=200)
        good += [*encoder.push(audio), *encoder.finish()]
    decoder, worst, samples, streams, began = None, 0.0, 0, 0, time.monotonic()
    for number in range(arguments.packets):
        if decoder is None or number % 500 == 0:
            decoder, streams = DatagramDecoder(codec), streams + 1
            if streams % 4:  # every fourth stream begins without a sound head
                decoder.push(good[0])
        packet = rng.choice(good)
        data = bytes(mutated(rng, packet)) if rng.random() < 0.5 else forged(rng, packet)
        start = time.monotonic()
        found = decoder.push(data)
        worst = max(worst, time.monotonic() - start)
        samples += found.shape[1]
        if not np.isfinite(found).all():
            print(f"packet {number}: samples that are not finite")
            return 1
        if (number + 1) % 10_000 == 0:
            print(
                f"{number + 1} packets, {streams} streams, {samples / 24_000:.0f} s of sound, "
                f"worst packet {worst:.2f} s, {time.monotonic() - began:.0f} s",
                flush=True,
            )
        if worst > arguments.stall:
            print(f"packet {number} took {worst:.1f} s")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
