"""Nested codebooks: those in the package, and coding with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nested_books import install_books, random_books

from simvq_audio.bitstream import Codes
from simvq_audio.codec import Codec
from simvq_audio.embedded import embedded_model
from simvq_audio.errors import CodesError, ConfigError, ModelError
from simvq_audio.nested import NestedBook, load_books, nested_books, save_books

RATE = 24_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32)
# Files name them: what they stand for must never change.
SHIPPED = {
    4096: "f589333dbaad",
    2048: "590ec8f6d7d7",
    1024: "097d1b7c88b9",
    512: "477412d694c7",
    256: "fdfe649e6eef",
}


@pytest.fixture
def books(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> list[NestedBook]:
    return install_books(monkeypatch, codec.codes_id)


def test_shipped_books() -> None:
    books = nested_books(embedded_model().codes_id)
    assert {size: book.codes_id for size, book in books.items()} == SHIPPED
    finer = 8192
    for size, book in books.items():
        assert len(set(book.entries.tolist())) == size
        assert 0 <= book.entries.min() <= book.entries.max() < 8192
        # Every entry has children.
        assert len(book.parents) == finer
        np.testing.assert_array_equal(np.unique(book.parents), np.arange(size))
        if finer < 8192:
            assert (np.diff(book.parents) >= 0).all()
        finer = size


def test_codes_are_the_nearest_entries(codec: Codec, books: list[NestedBook]) -> None:
    small = codec.with_codebook(16)
    assert (small.codebook_size, small.codes_id) == (16, books[1].codes_id)
    assert small.bitrate == 4 * codec.frame_rate
    np.testing.assert_array_equal(small.codebook(), codec.codebook()[books[1].entries])
    codes = small.encode(NOISE, RATE)
    with torch.inference_mode():
        latents = codec._model.encode_latent(torch.from_numpy(NOISE)).transpose(1, 2).numpy()
    distances = np.square(latents[:, :, np.newaxis] - small.codebook()).sum(3)
    np.testing.assert_array_equal(codes.indices, distances.argmin(2))


def test_any_codec_of_the_model_decodes_them(codec: Codec, books: list[NestedBook]) -> None:
    small = codec.with_codebook(64)
    codes = small.encode(NOISE, 16_000)
    full = Codes(
        books[0].entries[codes.indices], 512, codec.codes_id, codes.sample_rate, codes.num_samples
    )
    expected = codec.decode(full)
    torch.testing.assert_close(codec.decode(codes), expected, rtol=0, atol=0)
    torch.testing.assert_close(small.decode(codes), expected, rtol=0, atol=0)
    batch = codec.decode_batch([codes, full])
    torch.testing.assert_close(batch[0], batch[1], rtol=0, atol=0)
    decoder = small.decoder(16_000, 2)
    pieces = [decoder.push(codes.indices[:, :11]), decoder.push(codes.indices[:, 11:])]
    whole = np.concatenate([*pieces, decoder.finish(codes.num_samples)], axis=1)
    np.testing.assert_array_equal(whole, expected.numpy())


def test_files(codec: Codec, books: list[NestedBook], tmp_path: Path) -> None:
    codes = codec.with_codebook(16).encode(NOISE, RATE)
    codes.save(tmp_path / "a.codes")
    assert Codes.load(tmp_path / "a.codes") == codes
    # 32 bytes around 4 bits an index.
    assert (tmp_path / "a.codes").stat().st_size == 32 + codes.indices.size // 2
    bare = codec.with_codebook(16).codes_from_indices(codes.indices)
    assert bare.codes_id == codes.codes_id
    with pytest.raises(CodesError, match="16 entries"):
        codec.with_codebook(16).codes_from_indices([16])


def test_batches_and_streams_give_the_same_codes(codec: Codec, books: list[NestedBook]) -> None:
    small = codec.with_codebook(64)
    codes = small.encode(NOISE, RATE)
    assert small.encode_batch([NOISE, NOISE[:, :9000]], RATE)[0] == codes
    encoder = small.encoder(RATE, 2)
    pieces = [encoder.push(NOISE[:, :7001]), encoder.push(NOISE[:, 7001:]), encoder.finish()]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), codes.indices)


def test_parents_are_shorter_codes(codec: Codec, books: list[NestedBook]) -> None:
    """Codes of a larger codebook are converted to a smaller one without the recording."""
    codes = codec.with_codebook(64).encode(NOISE, RATE)
    small = codec.with_codebook(64).with_codebook(16)
    shortened = small.codes_from_indices(books[1].parents[codes.indices])
    assert codec.decode(shortened).shape == (2, codes.num_frames * codec.hop_length)


def test_refusals(codec: Codec, books: list[NestedBook], tmp_path: Path) -> None:
    assert codec.with_codebook(512) is codec
    assert codec.with_codebook(16).with_codebook(512) is codec
    with pytest.raises(ConfigError, match="no nested codebook of 100 entries; there are 64, 16"):
        codec.with_codebook(100)
    codes = codec.with_codebook(16).encode(NOISE, RATE)
    with pytest.raises(CodesError, match="these codes are"):
        codec.with_codebook(64).decode(codes)
    forged = Codes(codes.indices, 64, codes.codes_id, codes.sample_rate, codes.num_samples)
    with pytest.raises(CodesError, match="of 64 entries, the model has 16"):
        codec.decode(forged)


def test_models_without(codec: Codec) -> None:
    with pytest.raises(ConfigError, match="this model has no nested codebooks"):
        codec.with_codebook(64)


def test_damaged_files_of_books(tmp_path: Path) -> None:
    books, path = random_books("0123456789ab"), tmp_path / "books.safetensors"
    save_books(path, books)
    loaded = load_books(path)
    assert [book.codes_id for book in loaded] == [book.codes_id for book in books]
    np.testing.assert_array_equal(loaded[1].parents, books[1].parents)
    data = bytearray(path.read_bytes())
    data[data.index(b"0123456789ab")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_books(path)
