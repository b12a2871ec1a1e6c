"""The compact kind of model: lengths, batches, chunks, parameters."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig, SpectralEncoderConfig
from simvq_audio.model.encoder import SpectralEncoder
from simvq_audio.model.frames import FramedStft
from simvq_audio.model.published_import import published

HOP = 320
COMPACT = ModelConfig(encoder=SpectralEncoderConfig(bins=395))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 5000])
def test_frames_cover_the_samples(model, samples):
    indices = model.encode(noise(2, samples))
    assert indices.shape == (2, -(-samples // HOP))
    assert model.decode(indices).shape == (2, indices.shape[1] * HOP)


def test_no_samples_give_no_frames(model):
    assert model.encode(torch.zeros(1, 0)).shape == (1, 0)
    assert model.decode(torch.zeros(1, 0, dtype=torch.long)).shape == (1, 0)


def test_training_pass_agrees_with_encode_and_decode(model):
    waveform = noise(2, 5000)
    result = model(waveform)
    assert result.waveform.shape == waveform.shape
    assert torch.equal(result.quantized.indices, model.encode(waveform))
    torch.testing.assert_close(
        result.waveform, model.decode(result.quantized.indices)[:, :5000], atol=1e-5, rtol=1e-4
    )
    passed_by = model(waveform, quantize=False)
    assert passed_by.quantized is None
    torch.testing.assert_close(passed_by.waveform, model.decode_latent(passed_by.latent)[:, :5000])


@torch.no_grad()
def test_batch_of_unequal_lengths_is_each_alone(model):
    lengths = [9600, 1, 4001, 320, 9599]
    items = [noise(length, seed=i) for i, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
    indices = model.encode(padded, torch.tensor(lengths))
    frames = torch.tensor([-(-length // HOP) for length in lengths])
    waveform = model.decode(indices, frames)
    for item, row, samples, count in zip(items, indices, waveform, frames.tolist()):
        alone = model.encode(item[None])
        assert torch.equal(row[:count], alone[0])
        torch.testing.assert_close(samples[: count * HOP], model.decode(alone)[0], atol=0, rtol=0)


def pieces(total: int, sizes: list[int]) -> list[slice]:
    result, start, turn = [], 0, 0
    while start < total:
        size = sizes[turn % len(sizes)]
        result.append(slice(start, start + size))
        start, turn = start + size, turn + 1
    return result


@pytest.mark.parametrize("sizes", [[HOP], [7], [1000, 1, 50_000], [20_000], [0, 3333]])
@pytest.mark.parametrize("samples", [1, 2000, 40_007])
def test_streamed_encoding_is_whole_encoding(model, sizes, samples):
    if max(sizes) < 100:
        samples = min(samples, 2000)
    waveform = noise(2, samples)
    whole = model.encode(waveform)
    stream = model.encoder.stream()
    latent = [stream.push(waveform[:, part]) for part in pieces(samples, sizes)]
    latent.append(stream.push(waveform[:, :0], final=True))
    assert torch.equal(model.quantizer.encode(torch.cat(latent, dim=-1)), whole)


@pytest.mark.parametrize("sizes", [[1], [3, 40], [100]])
@pytest.mark.parametrize("frames", [1, 2, 130])
def test_streamed_decoding_is_whole_decoding(model, sizes, frames):
    latent = model.encode_latent(noise(2, frames * HOP))
    whole = model.decode_latent(latent)
    stream = model.decoder.stream()
    parts = pieces(frames, sizes)
    waveform = [stream.push(latent[..., part], final=part.stop >= frames) for part in parts]
    torch.testing.assert_close(torch.cat(waveform, dim=-1), whole, atol=0, rtol=0)


def test_stated_context_is_what_the_output_depends_on(model):
    """One frame beyond the context changes nothing; the context's last frame does."""
    frames, middle = 61, 30
    latent = model.encode_latent(noise(1, frames * HOP))
    reach = model.decoder.context_frames
    for offset, changes in ((reach + 1, False), (reach, True)):
        altered = latent.clone()
        altered[..., middle + offset] += 5.0
        span = slice(middle * HOP, (middle + 1) * HOP)
        same = torch.equal(
            model.decode_latent(altered)[:, span], model.decode_latent(latent)[:, span]
        )
        assert same != changes


def test_framed_stft_is_torchs_away_from_the_edges():
    waveform = noise(1, 9600)
    ours = FramedStft(1280, 320)(waveform)
    padded = torch.nn.functional.pad(waveform, (480, 480))
    theirs = torch.stft(
        padded, 1280, 320, window=torch.hann_window(1280), center=False, return_complex=True
    )
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_head_inverts_a_spectrum_that_a_waveform_has(model):
    """Given a real signal's spectra, overlap-add and normalisation bring the signal back."""
    waveform = noise(1, 20 * HOP)
    spectrum = FramedStft(1280, HOP)(waveform)
    head = model.decoder.head
    width = 2 * spectrum.shape[-1]
    through = torch.cat([spectrum.abs().clamp(min=1e-7).log(), spectrum.angle()], dim=-1)
    identity = torch.nn.Linear(width, width)
    torch.nn.init.eye_(identity.weight)
    torch.nn.init.zeros_(identity.bias)
    out, head.out = head.out, identity
    try:
        torch.testing.assert_close(head(through), waveform, atol=1e-4, rtol=0)
    finally:
        head.out = out


def test_encoder_of_few_bins_hears_nothing_above_them(model):
    config = dataclasses.replace(model.config.encoder, bins=320)  # up to 6 kHz
    torch.manual_seed(1)
    encoder = SpectralEncoder(config, 8).eval()
    time = torch.arange(100 * HOP) / 24_000
    # Over noise, since in silence compressed magnitudes show even the windows' side lobes.
    low = noise(1, len(time))
    # Away from the edges, where the tone begins and ends in clicks of all frequencies.
    inside = slice(20, 80)
    with torch.no_grad():
        alone, *others = (
            encoder(low + 0.3 * torch.sin(2 * torch.pi * hz * time))[..., inside]
            for hz in (9000, 10_000, 5000)
        )
    above, below = ((other - alone).abs().max() for other in others)
    assert above < 0.05 * below


def test_settings_that_came_later_change_no_model_id(model):
    """It covers the configuration."""
    assert "bins" not in model.config.to_dict()["encoder"]
    encoder = dataclasses.replace(model.config.encoder, bins=320)
    config = dataclasses.replace(model.config, encoder=encoder)
    assert config.to_dict()["encoder"]["bins"] == 320
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_compact_keeps_its_limits():
    config = COMPACT
    with torch.device("meta"):
        model = Autoencoder(config)
    numbers = sum(tensor.numel() for tensor in model.state_dict().values())
    assert numbers <= 15_000_000
    assert config.frame_rate <= 75
    assert config.bitrate <= 1000
    assert model.decoder.finite


@pytest.mark.parametrize("config", [COMPACT, published(1024)])
def test_configuration_survives_its_plain_form(config):
    assert ModelConfig.from_dict(config.to_dict()) == config
