"""A model with several codes a frame, from waveform to file and back."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import soundfile
import torch

from simvq_audio import Codec, Codes
from simvq_audio.cli import main
from simvq_audio.errors import CodesError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig, SpectralEncoderConfig, VocosDecoderConfig
from simvq_audio.model.quantizers.config import EmaVQConfig, ResidualConfig, SimVQConfig
from simvq_audio.model.storage import save_model

SIZES = (100, 64, 3)
CONFIG = ModelConfig(
    name="residual",
    encoder=SpectralEncoderConfig(dim=32, hidden_dim=64, blocks=2),
    quantizer=ResidualConfig(
        stages=(
            SimVQConfig(codebook_size=100, latent_dim=8),
            EmaVQConfig(codebook_size=64, latent_dim=8),
            SimVQConfig(codebook_size=3, latent_dim=8),
        )
    ),
    decoder=VocosDecoderConfig(dim=32, hidden_dim=64, blocks=3),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    model = Autoencoder(CONFIG).eval()
    latents = model.encode_latent(noise(4, 24_000)).transpose(1, 2).flatten(0, 1)
    model.quantizer.start(latents.detach(), torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("residual") / "residual.safetensors"
    save_model(path, CONFIG, model.state_dict())
    return path


@pytest.fixture(scope="module")
def codec(path) -> Codec:
    return Codec.load(path, device="cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_codes(channels: int = 2, frames: int = 11) -> Codes:
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, size, (channels, frames)) for size in SIZES]
    return Codes(np.stack(rows, axis=1), SIZES, "0123456789ab", 24_000, frames * 320)


def test_pieces_and_batches_are_the_whole(path, codec):
    assert codec.codebook_size == SIZES
    assert codec.bitrate == 75 * (7 + 6 + 2)
    waveform = noise(2, 40_000)
    codes = codec.encode(waveform, 24_000)
    assert codes.indices.shape == (2, 3, 125)
    assert len(np.unique(codes.indices[:, 0])) > 20
    pieces = Codec.load(path, device="cpu", batch_seconds=0.3)
    assert pieces.encode(waveform, 24_000) == codes
    whole = codec.decode(codes)
    assert whole.shape == (2, 40_000)
    torch.testing.assert_close(pieces.decode(codes), whole, atol=0, rtol=0)
    others = [noise(length, seed=length) for length in (9000, 3000)]
    batch = codec.encode_batch([waveform, *others], 24_000)
    assert batch[0] == codes
    assert batch[1:] == [codec.encode(other, 24_000) for other in others]
    for together, item in zip(codec.decode_batch(batch), batch):
        torch.testing.assert_close(together, codec.decode(item), atol=0, rtol=0)
    # Bare indices, of one channel and of two.
    same = codec.codes_from_indices(codes.indices[0])
    assert np.array_equal(same.indices[0], codes.indices[0])
    assert np.array_equal(codec.codes_from_indices(codes.indices).indices, codes.indices)


def test_files_are_exact_and_as_large_as_the_page_says(tmp_path):
    codes = some_codes()
    data = codes.to_bytes()
    assert len(data) == 32 + 1 + 3 * 3 + 2 * sum(-(-11 * bits // 8) for bits in (7, 6, 2))
    assert Codes.from_bytes(data) == codes
    codes.save(tmp_path / "a.codes")
    assert Codes.load(tmp_path / "a.codes") == codes
    assert codes.payload_bits == 2 * 11 * (7 + 6 + 2)
    empty = Codes(np.zeros((1, 3, 0), np.int32), SIZES, "0123456789ab", 24_000, 0)
    assert Codes.from_bytes(empty.to_bytes()) == empty


def resealed(data: bytes) -> bytes:
    """With a checksum that fits, as from a writer that does it wrong."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")


def test_damage_is_found():
    data = some_codes().to_bytes()
    for length in range(len(data)):
        with pytest.raises(CodesError):
            Codes.from_bytes(data[:length])
    with pytest.raises(CodesError, match="too long"):
        Codes.from_bytes(data + b"x")
    for place in range(len(data)):
        with pytest.raises(CodesError):
            Codes.from_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    for place, value, words in (
        (28, 1, "2 to 32 codebooks, not 1"),
        (28, 200, "2 to 32 codebooks, not 200"),
        (18, 98, "header and payload disagree"),
        (31, 98, "header and payload disagree"),
        (32, 255, "truncated"),
    ):
        with pytest.raises(CodesError, match=words):
            Codes.from_bytes(resealed(data[:place] + bytes([value]) + data[place + 1 :]))


@pytest.mark.parametrize(
    ("indices", "sizes", "words"),
    [
        (np.zeros((1, 2, 5), int), SIZES, r"\(channels, 3, frames\) or \(3, frames\)"),
        (np.zeros((2, 3, 5), int), 100, r"\(channels, frames\) or \(frames\)"),
        (np.full((3, 5), 3), SIZES, "a codebook of 3 entries has 0 to 2"),
        (np.zeros((3, 5), int), (100,), "2 to 32 codebooks, not 1"),
        (np.zeros((3, 5), int), (100, 64, 1), "codebook size must be 2 to"),
    ],
)
def test_codes_that_do_not_fit_are_refused(indices, sizes, words):
    with pytest.raises(CodesError, match=words):
        Codes(indices, sizes, "0123456789ab", 24_000, 5 * 320)


def test_the_program_codes_and_decodes(path, codec, tmp_path, capsys):
    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert not ended.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    waveform = noise(1, 16_000)
    soundfile.write(tmp_path / "a.wav", waveform[0].numpy(), 16_000)
    run("encode", tmp_path / "a.wav", tmp_path / "a.codes", "--model", path, "--quiet")
    facts = json.loads(run("info", tmp_path / "a.codes", "--json"))
    assert (facts["codebook_size"], facts["bits_per_code"]) == (list(SIZES), [7, 6, 2])
    assert "3 codebooks of 100, 64, 3 entries" in run("info", tmp_path / "a.codes")
    run("decode", tmp_path / "a.codes", tmp_path / "b.wav", "--model", path, "--quiet")
    assert soundfile.info(tmp_path / "b.wav").frames == 16_000
    run("encode", tmp_path / "a.wav", tmp_path / "a.npy", "--model", path, "--quiet")
    assert np.load(tmp_path / "a.npy").shape == (3, 75)
    run("decode", tmp_path / "a.npy", tmp_path / "c.wav", "--model", path, "--quiet")
