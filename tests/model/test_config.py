"""Configurations refuse what does not fit, and say which key it is."""

from __future__ import annotations

import dataclasses

import pytest

from simvq_audio.errors import ConfigError
from simvq_audio.model.config import ModelConfig, VocosDecoderConfig, without_training_settings
from simvq_audio.model.quantizers.config import (
    EmaVQConfig,
    FSQConfig,
    PackageConfig,
    ResidualConfig,
    SimVQConfig,
    VQConfig,
)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"encodr": {}}, "unknown key model.encodr"),
        (
            {"encoder": {"kind": "wavelet"}},
            "model.encoder.kind must be one of 'spectral', 'seanet'",
        ),
        ({"encoder": {"kind": "seanet", "n_fft": 3}}, "unknown key model.encoder.n_fft"),
        ({"encoder": []}, "model.encoder must be a table"),
        ({"decoder": {"dim": "wide"}}, "model.decoder.dim must be a valid integer, not 'wide'"),
        ({"decoder": {"dim": 0}}, "model.decoder.dim must be greater than or equal to 1, not 0"),
        ({"decoder": {"dim": True}}, "model.decoder.dim must be a valid integer, not True"),
        ({"decoder": {"dim": 3.0}}, "model.decoder.dim must be a valid integer, not 3.0"),
        ({"decoder": {"kernel_size": 4}}, "model.decoder: kernel_size must be odd"),
        ({"decoder": {"dim": 40, "attention_prenet": True}}, "multiple of 32"),
        ({"decoder": {"hop_length": 160}}, "hop length (320) is not the decoder's (160)"),
        ({"encoder": {"n_fft": 100}}, "model.encoder: n_fft must not be below hop_length"),
        ({"encoder": {"kind": "spectral", "bins": 0}}, "model.encoder.bins must be greater"),
        ({"encoder": {"bins": 642}}, "bins must not be above n_fft / 2 + 1 = 641, not 642"),
        ({"encoder": {"kind": "seanet", "strides": [2, 0]}}, "model.encoder.strides.1 must be"),
        ({"encoder": {"kind": "seanet", "strides": []}}, "model.encoder.strides"),
        ({"quantizer": {"codebook_size": 1}}, "model.quantizer.codebook_size must be greater"),
        ({"quantizer": {"codebook_size": 262_145}}, "less than or equal to 262144, not 262145"),
        ({"quantizer": {"kind": "vq", "bias": True}}, "unknown key model.quantizer.bias"),
        ({"quantizer": {"kind": "ema", "decay": 1.0}}, "model.quantizer.decay must be less than 1"),
        ({"quantizer": {"kind": "fsq", "levels": [512, 1024]}}, "must not be above 262144"),
        ({"quantizer": {"kind": "residual"}}, "model.quantizer.stages is missing"),
        (
            {"quantizer": {"kind": "residual", "stages": [{}, {"latent_dim": 8}]}},
            "model.quantizer: all stages must have the same latent_dim, not 8 and 64",
        ),
        (
            {"quantizer": {"kind": "residual", "stages": [{}, {"kind": "ema", "bias": True}]}},
            "unknown key model.quantizer.stages.1.bias",
        ),
        ({"sample_rate": 0}, "model.sample_rate must be greater than or equal to 1"),
        ("compact", "model must be a table of settings, not 'compact'"),
        (5, "model must be a table of settings, not 5"),
    ],
)
def test_wrong_values_are_named(values, words):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_constructors_check_too():
    with pytest.raises(ConfigError, match=r"VocosDecoderConfig\.dim must be greater"):
        VocosDecoderConfig(dim=0)
    with pytest.raises(ConfigError, match="VocosDecoderConfig: n_fft must not be below hop_length"):
        VocosDecoderConfig(n_fft=10)
    with pytest.raises(ConfigError, match=r"unknown key VocosDecoderConfig\.dims"):
        VocosDecoderConfig(dims=3)


def test_configurations_are_frozen():
    with pytest.raises(AttributeError):
        ModelConfig().decoder.dim = 3  # type: ignore[misc]


def test_rates_follow_from_the_sizes():
    config = ModelConfig()
    assert (config.hop_length, config.frame_rate, config.bitrate) == (320, 75.0, 975.0)
    assert config.quantizer.bits_per_frame == 13
    stages = (SimVQConfig(codebook_size=1000), EmaVQConfig(codebook_size=64))
    several = dataclasses.replace(config, quantizer=ResidualConfig(stages=stages))
    assert several.quantizer.codebook_sizes == (1000, 64)
    assert several.bitrate == 75 * (10 + 6)


@pytest.mark.parametrize(
    "quantizer",
    [
        SimVQConfig(bias=False, basis="trained"),
        VQConfig(codebook_size=16),
        EmaVQConfig(decay=0.9),
        FSQConfig(levels=(5, 5, 3)),
        ResidualConfig(stages=(VQConfig(), SimVQConfig())),
        PackageConfig(name="LFQ", codebook_sizes=(16,), options={"codebook_size": 16}),
    ],
)
def test_configurations_survive_their_plain_form(quantizer):
    config = ModelConfig(quantizer=quantizer)
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_configurations_of_older_model_files_are_read():
    old = ModelConfig().to_dict()
    del old["quantizer"]["kind"]
    old["quantizer"]["commitment"] = 0.5
    old["decoder"]["overlap_frames"] = 150
    assert ModelConfig.from_dict(without_training_settings(old)) == ModelConfig()
    with pytest.raises(ConfigError, match=r"unknown key model\.quantizer\.commitment"):
        ModelConfig.from_dict(old)
