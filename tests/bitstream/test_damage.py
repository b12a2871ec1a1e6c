"""Damaged, foreign and hostile files: one clear line each, and no memory."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import FIELDS, MUTATIONS, with_crc

from simvq_audio.bitstream import HEADER_BYTES, TRAILER_BYTES, Codes
from simvq_audio.errors import CodesError

# 1000 entries leave 24 of the 10-bit values invalid; 2 * 9 * 10 bits leave 4 bits of padding.
CODES = Codes(np.random.default_rng(5).integers(0, 1000, (2, 9)), 1000, "0123456789ab", 16000, 2800)
GOOD = CODES.to_bytes()


def edited(**values: int) -> bytes:
    """The good file with header fields replaced and the CRC made to fit."""
    body = bytearray(GOOD[:-TRAILER_BYTES])
    for name, value in values.items():
        offset, size = FIELDS[name]
        body[offset : offset + size] = value.to_bytes(size, "big")
    return with_crc(bytes(body))


def refusal(data: bytes) -> str:
    with pytest.raises(CodesError) as caught:
        Codes.from_bytes(data)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "cut.codes"
    for length in range(len(GOOD)):
        message = refusal(GOOD[:length])
        expected = len(GOOD) if length >= HEADER_BYTES else 32
        assert f"{expected} bytes expected, {length} found" in message
        assert "copy it again" in message
        path.write_bytes(GOOD[:length])
        with pytest.raises(CodesError) as caught:
            Codes.load(path)
        assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("extra", [b"\0", b"\n", GOOD[-4:], GOOD])
def test_over_long(tmp_path: Path, extra: bytes) -> None:
    message = refusal(GOOD + extra)
    assert "too long" in message
    assert f"{len(GOOD)} bytes expected, {len(GOOD) + len(extra)} found" in message
    (tmp_path / "long.codes").write_bytes(GOOD + extra)
    with pytest.raises(CodesError, match="too long"):
        Codes.load(tmp_path / "long.codes")


def test_every_single_bit_flip() -> None:
    for bit in range(8 * len(GOOD)):
        flipped = bytearray(GOOD)
        flipped[bit // 8] ^= 128 >> bit % 8
        refusal(bytes(flipped))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFF" + GOOD[4:], "not a .codes file"),
        (b"R", "not a .codes file"),
        # Each of these has several faults; the line names the one that explains the others.
        (b"RIFF" + edited(version=2)[4:20], "not a .codes file"),
        (edited(version=2, coding=1)[:30], "file version 2 is not known"),
        (edited(version=0), "file version 0 is not known"),
        (
            edited(coding=3, channels=0)[:30],
            "payload coding 3 is not known to this version; update simvq-audio",
        ),
        (edited(sample_rate=0)[:-1], "truncated"),
        (GOOD[:30] + bytes([GOOD[30] ^ 1]) + GOOD[31:], "altered or damaged"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "altered or damaged"),
        (edited(sample_rate=0)[:-4] + GOOD[-4:], "altered or damaged"),
        (edited(sample_rate=0), "sample rate"),
        (edited(samples=0), "9 frames cannot stand for 0 samples"),
        (edited(codebook=899), "codebook of 900 entries"),
        (with_crc(edited(frames=0)[:28]), "0 frames cannot stand for 2800 samples"),
        (with_crc(edited(channels=0)[:28]), "channel count"),
        (with_crc(edited(codebook=0)[:28]), "codebook size"),
        (with_crc(edited(codebook=262144, frames=1)[:28] + bytes(5)), "codebook size"),
        (with_crc(GOOD[:-5] + bytes([GOOD[-5] | 1])), "padding"),
    ],
)
def test_the_message_names_the_fault(data: bytes, message: str) -> None:
    assert message in refusal(data)


def test_bytes_like_input() -> None:
    assert Codes.from_bytes(bytearray(GOOD)) == CODES
    assert Codes.from_bytes(memoryview(GOOD)) == CODES


@settings(database=None, deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([0, 4, 6, 28]))
def test_arbitrary_bytes(noise: bytes, kept: int) -> None:
    # A random CRC that fits is a one in four billion matter.
    if GOOD[:kept] + noise != GOOD:
        refusal(GOOD[:kept] + noise)


def test_ten_thousand_mutations() -> None:
    rng = random.Random(20240)
    messages = []
    unchanged = other = 0
    for number in range(10_000):
        data = bytearray(GOOD)
        # Half of the files get a CRC that fits, so that the checks behind it are reached.
        fix_crc = number % 2 == 1
        if fix_crc:
            del data[-TRAILER_BYTES:]
        MUTATIONS[number // 2 % len(MUTATIONS)](rng, data)
        mutant = with_crc(bytes(data)) if fix_crc else bytes(data)
        try:
            read = Codes.from_bytes(mutant)
        except CodesError as error:
            messages.append(str(error))
            assert mutant != GOOD
            continue
        # Whatever is read must be exactly what the bytes say.
        assert read.to_bytes() == mutant
        if mutant == GOOD:
            assert read == CODES
            unchanged += 1
        else:
            assert fix_crc
            assert read != CODES
            other += 1
    # All three ways out were taken, or the mutations are not the test they seem to be.
    assert unchanged > 10
    assert other > 100
    assert len(messages) > 5000
    assert not any("\n" in message for message in messages)


def peak_of_refusing(read: Callable[[], Codes]) -> int:
    """Bytes allocated at the worst moment while ``read`` fails with CodesError."""
    tracemalloc.start()
    try:
        with pytest.raises(CodesError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        edited(frames=2**32 - 1),
        edited(frames=2**32 - 1, channels=255, codebook=262143),
        edited(frames=2**32 - 1, channels=255, codebook=2**24 - 1, samples=2**40 - 1),
        # No bits per index, so that any number of frames agrees with an empty payload.
        with_crc(edited(frames=2**32 - 1, channels=255, codebook=0)[:28]),
    ],
)
def test_huge_claims_cost_no_memory(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "huge.codes"
    path.write_bytes(data)
    assert peak_of_refusing(lambda: Codes.from_bytes(data)) < 300_000
    assert peak_of_refusing(lambda: Codes.load(path)) < 300_000


@pytest.mark.parametrize("frames", [9, 2**32 - 1])
def test_a_large_wrong_file_is_not_read(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "large.codes"
    path.write_bytes(edited(frames=frames))
    # Mostly a hole: it takes no room on most disks.
    os.truncate(path, 50_000_000)
    assert peak_of_refusing(lambda: Codes.load(path)) < 300_000


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.codes", tmp_path, "null\0character.codes", "two\nlines.codes"):
        with pytest.raises(CodesError) as caught:
            Codes.load(path)
        message = str(caught.value)
        assert message.isprintable()
        assert repr(str(path))[1:-1] in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.codes")
    with pytest.raises(CodesError, match="not a regular file"):
        Codes.load(tmp_path / "pipe.codes")
