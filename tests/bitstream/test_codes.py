"""Codes: the fields it accepts, the files it writes, the values it derives."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.bitstream import MAX_CODEBOOK_SIZE, OVERHEAD_BYTES, Codes
from simvq_audio.errors import CodesError

FIELDS = {
    "indices": np.array([[1, 2, 3], [9, 8, 0]]),
    "codebook_size": 10,
    "codes_id": "0123456789ab",
    "sample_rate": 16000,
    "num_samples": 900,
}


def make(**changes: object) -> Codes:
    return Codes(**{**FIELDS, **changes})


def random_codes(channels: int, frames: int, codebook_size: int, seed: int = 0) -> Codes:
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, codebook_size, (channels, frames))
    return make(indices=indices, codebook_size=codebook_size, num_samples=frames * 320)


@settings(database=None, deadline=None)
@given(
    channels=st.integers(1, 255),
    frames=st.integers(0, 60),
    codebook_size=st.integers(2, MAX_CODEBOOK_SIZE),
    codes_id=st.binary(min_size=6, max_size=6),
    sample_rate=st.integers(1, 2**24 - 1),
    num_samples=st.integers(1, 2**40 - 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(
    channels: int,
    frames: int,
    codebook_size: int,
    codes_id: bytes,
    sample_rate: int,
    num_samples: int,
    seed: int,
) -> None:
    indices = np.random.default_rng(seed).integers(0, codebook_size, (channels, frames))
    codes = Codes(
        indices=indices,
        codebook_size=codebook_size,
        codes_id=codes_id.hex(),
        sample_rate=sample_rate,
        num_samples=num_samples if frames else 0,
    )
    data = codes.to_bytes()
    bits = int(np.ceil(np.log2(codebook_size)))
    assert codes.bits_per_code == bits
    assert codes.payload_bits == channels * frames * bits
    assert len(data) == 28 + -(-channels * frames * bits // 8) + 4
    read = Codes.from_bytes(data)
    assert read == codes
    assert np.array_equal(read.indices, indices)
    assert read.codes_id == codes_id.hex()
    assert (read.sample_rate, read.num_samples) == (codes.sample_rate, codes.num_samples)
    assert read.to_bytes() == data


@pytest.mark.parametrize("bits", range(1, 19))
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_codebook_sizes_around_powers_of_two(bits: int, offset: int) -> None:
    size = 2**bits + offset
    if not 2 <= size <= MAX_CODEBOOK_SIZE:
        with pytest.raises(CodesError, match="codebook size"):
            make(indices=np.array([0]), codebook_size=size)
        return
    codes = make(indices=np.array([0, size - 1, 0]), codebook_size=size)
    assert codes.bits_per_code == (bits + 1 if offset == 1 else max(bits, 1))
    assert Codes.from_bytes(codes.to_bytes()) == codes


def test_ten_seconds_take_1251_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = Codes(rng.integers(0, 8192, 750), 8192, "0123456789ab", 24000, 240_000)
    codes.save(tmp_path / "ten.codes")
    assert os.path.getsize(tmp_path / "ten.codes") == 1251
    assert codes.duration == 10.0
    assert codes.payload_bits == 9750
    assert codes.payload_bitrate == 975.0
    assert Codes.load(tmp_path / "ten.codes") == codes


@pytest.mark.parametrize("channels", [1, 2, 255])
@pytest.mark.parametrize("frames", [1, 7, 100])
def test_size_on_disk(tmp_path: Path, channels: int, frames: int) -> None:
    path = tmp_path / "some.codes"
    codes = random_codes(channels, frames, 1000)
    codes.save(path)
    assert path.stat().st_size == OVERHEAD_BYTES + -(-channels * frames * 10 // 8)
    assert Codes.load(str(path)) == codes
    assert os.listdir(tmp_path) == ["some.codes"]


@pytest.mark.parametrize("shape", [(0,), (1, 0), (3, 0)])
def test_empty_recording(tmp_path: Path, shape: tuple[int, ...]) -> None:
    codes = make(indices=np.zeros(shape, np.int64), num_samples=0)
    assert (codes.channels, codes.num_frames) == ((1, 0) if len(shape) == 1 else shape)
    assert len(codes.to_bytes()) == OVERHEAD_BYTES
    assert (codes.duration, codes.payload_bits, codes.payload_bitrate) == (0.0, 0, 0.0)
    codes.save(tmp_path / "empty.codes")
    assert Codes.load(tmp_path / "empty.codes") == codes


def test_largest_fields() -> None:
    codes = make(
        indices=np.array([262143]),
        codebook_size=262144,
        codes_id="f" * 12,
        sample_rate=2**24 - 1,
        num_samples=2**40 - 1,
    )
    assert Codes.from_bytes(codes.to_bytes()) == codes


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.int64, ">i4", np.int32])
def test_stored_indices(dtype: object) -> None:
    given_indices = np.array([[1, 9], [2, 8], [3, 0]], dtype).T
    codes = make(indices=given_indices)
    assert codes.indices.dtype == np.dtype(np.int32)
    assert codes.indices.flags.c_contiguous
    assert not codes.indices.flags.writeable
    assert codes == make()
    # Neither frozen nor shared: the caller's array stays the caller's.
    given_indices[0, 0] = 5
    assert codes.indices[0, 0] == 1


def test_one_dimension_is_one_channel() -> None:
    codes = make(indices=np.array([4, 5, 6]))
    assert codes.indices.tolist() == [[4, 5, 6]]
    assert codes == make(indices=np.array([[4, 5, 6]]))


def test_numpy_scalars_become_plain_integers() -> None:
    codes = make(sample_rate=np.int32(16000), num_samples=np.int64(900), codebook_size=np.uint8(10))
    assert type(codes.sample_rate) is type(codes.num_samples) is type(codes.codebook_size) is int
    assert codes.to_bytes() == make().to_bytes()


def test_equality_and_hash() -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    changes = [
        {"indices": np.array([[1, 2, 3], [9, 8, 1]])},
        {"indices": np.array([1, 2, 3, 9, 8, 0])},
        {"codebook_size": 11},
        {"codes_id": "0123456789ac"},
        {"sample_rate": 16001},
        {"num_samples": 901},
    ]
    for change in changes:
        assert make() != make(**change)
    assert len({make(), make(), *(make(**change) for change in changes)}) == 1 + len(changes)
    assert make() != "codes"


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().sample_rate = 8000
    with pytest.raises(ValueError, match="read-only"):
        make().indices[0, 0] = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.array([[1.0, 2.0]])}, "integers"),
        ({"indices": np.array([True, False])}, "integers"),
        ({"indices": np.array(["1"])}, "integers"),
        ({"indices": [[1, 2], [3]]}, "array of integers"),
        ({"indices": np.array(3)}, "shape"),
        ({"indices": np.zeros((1, 2, 3), int)}, "shape"),
        ({"indices": np.zeros((0, 3), int)}, "channel count"),
        ({"indices": np.zeros((256, 3), int)}, "channel count"),
        ({"indices": np.array([1, 10])}, "0 to 9"),
        ({"indices": np.array([1, -1])}, "0 to 9"),
        # Both would fall into the range if they were cast to int32 unchecked.
        ({"indices": np.array([2**32 + 1])}, "0 to 9"),
        ({"indices": np.array([2**64 - 2**32 + 1], np.uint64)}, "0 to 9"),
        ({"codebook_size": 1, "indices": np.array([0])}, "codebook size"),
        ({"codebook_size": 262145}, "codebook size"),
        ({"codebook_size": 10.0}, "codebook_size"),
        ({"codes_id": "0123456789AB"}, "codes_id"),
        ({"codes_id": "0123456789a"}, "codes_id"),
        ({"codes_id": "0123456789ab\n"}, "codes_id"),
        ({"codes_id": b"0123456789ab"}, "codes_id"),
        ({"sample_rate": 0}, "sample rate"),
        ({"sample_rate": 2**24}, "sample rate"),
        ({"sample_rate": 16000.0}, "sample_rate"),
        ({"num_samples": -1}, "sample count"),
        ({"num_samples": 2**40}, "sample count"),
        ({"num_samples": 0}, "3 frames"),
        ({"indices": np.zeros((1, 0), int)}, "0 frames"),
    ],
)
def test_refuses_fields(change: dict[str, object], message: str) -> None:
    with pytest.raises(CodesError, match=message) as caught:
        make(**change)
    assert "\n" not in str(caught.value)


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.codes"
    make().save(path)

    def full_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(CodesError, match="No space left") as caught:
        make(num_samples=901).save(path)
    assert str(path) in str(caught.value)
    assert Codes.load(path) == make()
    assert os.listdir(tmp_path) == ["some.codes"]


def test_save_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match="cannot be written"):
        make().save(tmp_path / "none" / "some.codes")
    with pytest.raises(CodesError, match="cannot be written"):
        make().save("null\0character.codes")
