"""Models that look ahead only so far: what an output depends on, streams, weights that fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from simvq_audio.codec import Codec
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.backbone import layer_look_ahead
from simvq_audio.model.config import ModelConfig
from simvq_audio.model.storage import save_model


def live_config(config: ModelConfig, encoder: int, decoder: int) -> ModelConfig:
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, look_ahead_frames=encoder),
        decoder=dataclasses.replace(config.decoder, look_ahead_frames=decoder),
    )


@pytest.fixture(scope="module")
def live(model) -> Autoencoder:
    """The small model with its own weights, one frame ahead in the kernels of each part."""
    live = Autoencoder(live_config(model.config, 1, 1)).eval().requires_grad_(False)
    live.load_state_dict(model.state_dict())
    return live


def test_look_ahead_is_used_up_by_the_first_layers():
    for frames, layers in [(None, [3, 3, 3]), (0, [0, 0, 0]), (4, [3, 1, 0]), (9, [3, 3, 3])]:
        assert [layer_look_ahead(frames, number, 7) for number in range(3)] == layers


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_nothing_beyond_the_look_ahead_is_seen(model, ahead):
    live = Autoencoder(live_config(model.config, ahead, ahead)).eval().requires_grad_(False)
    live.load_state_dict(model.state_dict())
    frames, at, hop = 60, 30, 320
    assert live.encoder.look_ahead_frames == live.decoder.look_ahead_frames == ahead + 2
    waveform = 0.1 * torch.randn(1, frames * hop)
    changed = waveform.clone()
    # Half the window of the STFT, and what the kernels reach.
    changed[:, (at + 1 + ahead) * hop + 480 :] = 0.5
    before, after = live.encode_latent(waveform), live.encode_latent(changed)
    assert torch.equal(before[..., : at + 1], after[..., : at + 1])
    assert not torch.equal(before[..., : at + 3], after[..., : at + 3])
    latent = torch.randn(1, 8, frames)
    changed = latent.clone()
    changed[..., at + 1 + live.decoder.look_ahead_frames :] = 1.0
    before, after = live.decode_latent(latent), live.decode_latent(changed)
    assert torch.equal(before[:, : (at + 1) * hop], after[:, : (at + 1) * hop])
    assert not torch.equal(before[:, : (at + 2) * hop], after[:, : (at + 2) * hop])


def test_all_that_the_kernels_reach_is_what_they_see_without_a_limit(model):
    full = Autoencoder(live_config(model.config, 6, 12)).eval().requires_grad_(False)
    full.load_state_dict(model.state_dict())
    waveform = 0.1 * torch.randn(2, 9000)
    assert torch.equal(full.encode_latent(waveform), model.encode_latent(waveform))
    latent = torch.randn(2, 8, 40)
    assert torch.equal(full.decode_latent(latent), model.decode_latent(latent))


def test_streams_give_the_whole_and_wait_less(live, tmp_path: Path):
    path = tmp_path / "live.safetensors"
    save_model(path, live.config, live.state_dict())
    codec = Codec.load(path, device="cpu")
    waveform = 0.1 * np.random.default_rng(0).standard_normal((1, 30_000)).astype("f4")
    whole = codec.encode(waveform, 24_000)
    encoder, decoder = codec.encoder(24_000), codec.decoder()
    # A frame, then three to look ahead; three more in the decoder.
    assert encoder.latency_ms == pytest.approx(4000 / 75)
    assert decoder.latency_ms == pytest.approx(3000 / 75)
    codes, samples = [], []
    for start in range(0, 30_000, 700):
        codes.append(encoder.push(waveform[:, start : start + 700]))
        samples.append(decoder.push(codes[-1]))
    codes.append(encoder.finish())
    samples += [decoder.push(codes[-1]), decoder.finish(30_000)]
    assert np.array_equal(np.concatenate(codes, axis=1), whole.indices)
    together = torch.from_numpy(np.concatenate(samples, axis=1))
    torch.testing.assert_close(together, codec.decode(whole), atol=0, rtol=0)


def test_a_batch_gives_each_item_what_it_gives_alone(live):
    waveform = 0.1 * torch.randn(2, 6400)
    waveform[1, 3200:] = 0
    latent = live.encode_latent(waveform, torch.tensor([6400, 3200]))
    alone = live.encode_latent(waveform[1:, :3200])
    torch.testing.assert_close(latent[1:, :, :10], alone)
    together = live.decode_latent(latent, torch.tensor([20, 10]))
    alone = live.decode_latent(latent[1:, :, :10])
    torch.testing.assert_close(together[1:, :3200], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        {"encoder": {"look_ahead_frames": -1}},
        {"encoder": {"look_ahead_frames": 19}},
        {"decoder": {"look_ahead_frames": 28}},
        {"decoder": {"look_ahead_frames": 1, "attention_prenet": True}},
    ],
)
def test_impossible_look_ahead_is_refused(values):
    with pytest.raises(ConfigError, match="look_ahead_frames"):
        ModelConfig.from_dict(values)
