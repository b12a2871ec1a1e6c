"""Files of coding 1: what is written comes back, what is damaged or forged is refused."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS, with_crc
from random_prior import CODES_ID, DILATIONS, only_prior, random_tensors, sample

from simvq_audio.bitstream import HEADER_BYTES, TRAILER_BYTES, Codes
from simvq_audio.bitstream.blocks import BlockTable, decode_blocks, encode_blocks, table_bytes
from simvq_audio.errors import CodesError
from simvq_audio.prior import CausalPrior, save_prior

# Of the whole file, 100 000 are tried where there is time.
MUTATIONS_TRIED = int(os.environ.get("SIMVQ_AUDIO_MUTATIONS", "3000"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CausalPrior]:
    path = tmp_path_factory.mktemp("prior") / "random.safetensors"
    save_prior(path, random_tensors(), CODES_ID, DILATIONS)
    with only_prior(path) as found:
        yield found


@pytest.fixture(scope="module")
def codes(prior: CausalPrior) -> Codes:
    """Two channels in three blocks each; one block is plain."""
    indices = np.stack([sample(prior, 1600, seed) for seed in (0, 1)])
    indices[1, 750:1500] = np.random.default_rng(0).integers(0, prior.codebook_size, 750)
    return Codes(indices, prior.codebook_size, CODES_ID, 16000, 1600 * 200)


def unpacked(payload: bytes, channels: int, frames: int, prior: CausalPrior) -> np.ndarray:
    head = payload[: table_bytes(payload, channels, frames)]
    table = BlockTable(head, channels, frames, prior.codebook_size)
    assert table.payload_size == len(payload)
    return decode_blocks(payload, table, prior).reshape(channels, frames)


@settings(database=None, deadline=None, max_examples=30)
@given(
    channels=st.integers(1, 3),
    frames=st.integers(0, 60),
    block_frames=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    likely=st.booleans(),
)
def test_round_trip(
    prior: CausalPrior, channels: int, frames: int, block_frames: int, seed: int, likely: bool
) -> None:
    if likely:
        indices = np.stack([sample(prior, frames, seed + i) for i in range(channels)])
    else:
        indices = np.random.default_rng(seed).integers(0, prior.codebook_size, (channels, frames))
    payload = encode_blocks(indices, prior, block_frames)
    np.testing.assert_array_equal(unpacked(payload, channels, frames, prior), indices)


def test_file_round_trip(prior: CausalPrior, codes: Codes, tmp_path: Path) -> None:
    codes.save(tmp_path / "a.codes")
    data = (tmp_path / "a.codes").read_bytes()
    assert data[5] == 1
    assert data == codes.to_bytes()
    assert Codes.load(tmp_path / "a.codes") == codes
    table = data[HEADER_BYTES : HEADER_BYTES + table_bytes(data[HEADER_BYTES:], 2, 1600)]
    blocks = BlockTable(table, 2, 1600, prior.codebook_size)
    assert blocks.coded.tolist() == [True, True, True, True, False, True]
    assert blocks.lengths.tolist() == [750, 750, 100] * 2


def test_fixed_width_on_request(prior: CausalPrior, codes: Codes) -> None:
    data = codes.to_bytes("fixed")
    assert data[5] == 0
    assert len(data) > len(codes.to_bytes())
    assert Codes.from_bytes(data) == codes
    with pytest.raises(CodesError, match="must be"):
        codes.to_bytes("zip")


def test_fixed_width_where_nothing_is_saved(prior: CausalPrior) -> None:
    rng = np.random.default_rng(0)
    unlikely = Codes(rng.integers(0, prior.codebook_size, 900), 512, CODES_ID, 16000, 900)
    assert unlikely.to_bytes() == unlikely.to_bytes("fixed")
    empty = Codes(np.empty((1, 0), np.int32), 512, CODES_ID, 16000, 0)
    assert empty.to_bytes()[5] == 0


def test_fixed_width_without_a_prior(prior: CausalPrior, codes: Codes) -> None:
    other = Codes(codes.indices, codes.codebook_size, "ba9876543210", 16000, 1600)
    assert other.to_bytes()[5] == 0
    nested = Codes(codes.indices % 256, 256, CODES_ID, 16000, 1600)
    assert nested.to_bytes()[5] == 0


def test_unknown_prior(codes: Codes, tmp_path: Path) -> None:
    data = codes.to_bytes()
    path = tmp_path / "other.safetensors"
    save_prior(path, random_tensors(seed=1), CODES_ID, DILATIONS)
    with only_prior(path), pytest.raises(CodesError) as caught:
        Codes.from_bytes(data)
    assert str(caught.value) == (
        f"the file was coded with the prior {data[28:32].hex()}, which this version does not "
        "have; update simvq-audio"
    )


def test_silence_takes_its_least_bytes() -> None:
    """Codes that a prior takes for certain: zeros fill the block up, and must be zeros."""
    tensors = random_tensors()
    for level in ("clusters", "members"):
        tensors[f"{level}.weight"] = np.zeros_like(tensors[f"{level}.weight"])
        tensors[f"{level}.bias"][..., 0] = 2**22
    prior = CausalPrior(tensors, DILATIONS)
    likely = np.full(640, prior.tree[0, 0])
    payload = encode_blocks(likely[np.newaxis], prior)
    np.testing.assert_array_equal(unpacked(payload, 1, 640, prior), likely[np.newaxis])
    assert len(payload) == 6 + 2 + 4 + 2 * 10
    assert payload.endswith(b"\0\0")
    with pytest.raises(CodesError, match="does not end"):
        unpacked(payload[:-1] + b"\1", 1, 640, prior)
    longer = payload[:6] + (26).to_bytes(2, "big") + payload[8:] + b"\0\0"
    with pytest.raises(CodesError, match="longer than its codes need"):
        unpacked(longer, 1, 640, prior)


def refusal(data: bytes) -> str:
    with pytest.raises(CodesError) as caught:
        Codes.from_bytes(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truncations(codes: Codes, tmp_path: Path) -> None:
    data = codes.to_bytes()
    path = tmp_path / "cut.codes"
    for length in [*range(28, 60), *range(60, len(data), 37)]:
        assert f"bytes expected, {length} found" in refusal(data[:length])
        path.write_bytes(data[:length])
        with pytest.raises(CodesError, match="truncated"):
            Codes.load(path)
    assert "too long" in refusal(data + b"\0")


@pytest.mark.parametrize("frames", [0, 16385, 65535])
def test_impossible_blocks(codes: Codes, frames: int) -> None:
    data = bytearray(codes.to_bytes()[:-TRAILER_BYTES])
    data[32:34] = frames.to_bytes(2, "big")
    assert "a block must have" in refusal(with_crc(bytes(data)))


def test_coded_blocks_that_save_nothing(codes: Codes) -> None:
    data = bytearray(codes.to_bytes()[:-TRAILER_BYTES])
    data[34:36] = (65534).to_bytes(2, "big")
    assert "saves nothing" in refusal(with_crc(bytes(data)))


def test_mutations(prior: CausalPrior, codes: Codes) -> None:
    """No altered file is read as something that it does not say."""
    indices = codes.indices[:, :100]
    good = Codes(indices, codes.codebook_size, CODES_ID, 16000, 100).to_bytes()
    assert good[5] == 1
    rng = random.Random(7)
    other = 0
    for number in range(MUTATIONS_TRIED):
        data = bytearray(good)
        # One in eight gets a CRC that fits, so that the checks behind it are reached.
        fix_crc = number % 8 == 0
        if fix_crc:
            del data[-TRAILER_BYTES:]
        MUTATIONS[number // 8 % len(MUTATIONS)](rng, data)
        mutant = with_crc(bytes(data)) if fix_crc else bytes(data)
        try:
            read = Codes.from_bytes(mutant)
        except CodesError as error:
            assert "\n" not in str(error)
            continue
        if mutant != good:
            assert fix_crc
            # A forged file that is read is what a writer makes of those codes, but for blocks that
            # it could have coded.
            payload = mutant[HEADER_BYTES:-TRAILER_BYTES]
            head = payload[: table_bytes(payload, read.channels, read.num_frames)]
            table = BlockTable(head, read.channels, read.num_frames, read.codebook_size)
            if mutant[5] == 1 and table.coded.all():
                assert encode_blocks(read.indices, prior, table.block_frames) == payload
            other += 1
    assert other > MUTATIONS_TRIED // 1000


def test_forged_claims_cost_no_memory(codes: Codes, tmp_path: Path) -> None:
    data = bytearray(codes.to_bytes()[:-TRAILER_BYTES])
    data[24:28] = (2**32 - 1).to_bytes(4, "big")
    forged = with_crc(bytes(data))
    path = tmp_path / "forged.codes"
    path.write_bytes(forged)
    for read in (lambda: Codes.from_bytes(forged), lambda: Codes.load(path)):
        tracemalloc.start()
        try:
            with pytest.raises(CodesError, match="truncated"):
                read()
            assert tracemalloc.get_traced_memory()[1] < 300_000
        finally:
            tracemalloc.stop()


def test_interrupted_write_leaves_nothing(
    codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.codes"
    path.write_bytes(b"old")

    def interrupted(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        codes.save(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.codes"]


def test_mutations_allocate_no_more_than_their_size_warrants(codes: Codes) -> None:
    good = codes.to_bytes()
    rng = random.Random(11)
    for number in range(35):
        data = bytearray(good[:-TRAILER_BYTES])
        MUTATIONS[number % len(MUTATIONS)](rng, data)
        mutant = with_crc(bytes(data))
        tracemalloc.start()
        try:
            Codes.from_bytes(mutant)
        except CodesError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        # 32 frames a byte at the most, of some integers of 8 bytes each; and the past that the
        # prior keeps for blocks decoded side by side.
        assert peak < 500_000 + 2000 * len(mutant)
