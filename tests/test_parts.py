"""Reading and decoding from the middle: the same as a slice of the whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from random_prior import DILATIONS, only_prior, random_tensors, sample

from simvq_audio.bitstream import Codes, CodesFile
from simvq_audio.codec import Codec
from simvq_audio.errors import CodesError, ConfigError
from simvq_audio.prior import save_prior

RANGES = [(0, 1), (0, 2000), (749, 751), (750, 1500), (3, 1997), (1999, 2000), (640, 640)]


@pytest.fixture(scope="module", autouse=True)
def prior(codec: Codec, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("prior") / "random.safetensors"
    save_prior(path, random_tensors(), codec.codes_id, DILATIONS)
    with only_prior(path) as found:
        yield found


@pytest.fixture(scope="module")
def codes(codec: Codec, prior) -> Codes:
    """Two channels of 2000 frames, the first cheap and the second not."""
    rng = np.random.default_rng(0)
    rows = [sample(prior, 2000), rng.integers(0, 512, 2000)]
    return Codes(np.stack(rows), 512, codec.codes_id, 24_000, 2000 * 320 - 7)


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


@pytest.mark.parametrize("coding", ["entropy", "fixed"])
def test_parts_of_files(codes: Codes, coding: str) -> None:
    data = codes.to_bytes(coding)
    assert data[5] == (coding == "entropy")
    file = CodesFile(io.BytesIO(data))
    assert (file.channels, file.num_frames, file.duration) == (2, 2000, codes.duration)
    for start, end in RANGES:
        np.testing.assert_array_equal(file.read(start, end), codes.indices[:, start:end])
    np.testing.assert_array_equal(file.read(), codes.indices)


@pytest.mark.parametrize("size", [2, 500, 512])
def test_any_width(size: int) -> None:
    rng = np.random.default_rng(1)
    codes = Codes(rng.integers(0, size, (3, 101)), size, "0123456789ab", 8000, 5000)
    file = CodesFile(io.BytesIO(codes.to_bytes()))
    for start, end in [(0, 101), (50, 101), (1, 2), (8, 16), (97, 100)]:
        np.testing.assert_array_equal(file.read(start, end), codes.indices[:, start:end])


def test_several_codes_a_frame() -> None:
    rng = np.random.default_rng(2)
    sizes = (512, 1000, 3)
    rows = np.stack([rng.integers(0, size, (2, 77)) for size in sizes], axis=1)
    codes = Codes(rows, sizes, "0123456789ab", 8000, 5000)
    file = CodesFile(io.BytesIO(codes.to_bytes()))
    assert file.codebook_size == sizes
    for start, end in [(0, 77), (5, 70), (76, 77), (3, 3)]:
        np.testing.assert_array_equal(file.read(start, end), codes.indices[..., start:end])


@pytest.mark.parametrize("coding", ["entropy", "fixed"])
def test_no_more_is_read_than_needed(codes: Codes, coding: str) -> None:
    source = Counting(codes.to_bytes(coding))
    CodesFile(source).read(1600, 1610)
    # Of the entropy-coded channel the last block, 500 frames of 2000.
    assert source.total < {"entropy": len(source.getvalue()) // 2, "fixed": 150}[coding]


def test_refusals(codes: Codes, tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    codes.save(path)
    with CodesFile(path) as file, pytest.raises(IndexError, match="frames 1990 to 2001 of 2000"):
        file.read(1990, 2001)
    data = bytearray(path.read_bytes())
    data[-30] ^= 255
    path.write_bytes(data)
    with CodesFile(path) as file:
        file.read(0, 10)
        with pytest.raises(CodesError, match=r"a\.codes"):
            Codes.load(path)
    path.write_bytes(data[:-1])
    with pytest.raises(CodesError, match="truncated"):
        CodesFile(path)
    with pytest.raises(CodesError, match="check the path"):
        CodesFile(tmp_path / "none.codes")
    with pytest.raises(CodesError, match="not a regular file"):
        CodesFile(tmp_path)


def test_a_damaged_block_is_found(codes: Codes) -> None:
    data = bytearray(codes.to_bytes())
    # In the words of the first block, beyond header, table and state.
    data[28 + 6 + 2 * 6 + 100] ^= 1
    file = CodesFile(io.BytesIO(bytes(data)))
    with pytest.raises(CodesError):
        file.read(0, 10)
    np.testing.assert_array_equal(file.read(750, 2000), codes.indices[:, 750:2000])


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("native_rate", [False, True])
def test_decoded_parts_are_those_of_the_whole(
    codec: Codec, codes: Codes, rate: int, native_rate: bool
) -> None:
    samples = (400 * 320 - 7) * rate // 24_000
    some = Codes(codes.indices[:, :400], 512, codes.codes_id, rate, samples)
    whole = codec.decode(some, native_rate=native_rate)
    out_rate = 24_000 if native_rate else rate
    file = CodesFile(io.BytesIO(some.to_bytes()))
    for start, end in [(0.0, 0.5), (2.0, 2.25), (3.1, None), (5.0, 99.0), (1.234567, 1.3)]:
        first, last = round(start * out_rate), whole.shape[1]
        if end is not None:
            last = min(last, round(end * out_rate))
        for source in (some, file):
            part = codec.decode(source, native_rate=native_rate, start=start, end=end)
            torch.testing.assert_close(part, whole[:, first:last], atol=0, rtol=0)
    torch.testing.assert_close(codec.decode(file, native_rate=native_rate), whole, atol=0, rtol=0)


def test_long_parts_in_pieces(codec: Codec, codes: Codes) -> None:
    small = codec.with_batch_seconds(2.0)
    whole = codec.decode(codes)
    blocks = list(small.decode_stream(codes, start=1.0, end=25.0))
    assert len(blocks) > 5
    part = torch.from_numpy(np.concatenate(blocks).T)
    torch.testing.assert_close(part, whole[:, 24_000 : 25 * 24_000], atol=0, rtol=0)


def test_parts_that_are_not_there(codec: Codec, codes: Codes) -> None:
    for start, end in [(27.0, None), (-1.0, None), (3.0, 3.0), (3.0, 2.0)]:
        with pytest.raises(ConfigError):
            codec.decode(codes, start=start, end=end)
    empty = codec.encode(np.zeros((1, 0), np.float32), 24_000)
    assert codec.decode(CodesFile(io.BytesIO(empty.to_bytes()))).shape == (1, 0)
