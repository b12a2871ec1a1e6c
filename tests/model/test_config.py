"""Configurations refuse what does not fit, and say which key it is."""

from __future__ import annotations

import pytest

from simvq_audio.errors import ConfigError
from simvq_audio.model.config import ModelConfig, compact


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"encodr": {}}, "unknown key 'encodr'"),
        ({"encoder": {"kind": "wavelet"}}, "unknown encoder kind 'wavelet'"),
        ({"encoder": {"kind": "seanet", "n_fft": 3}}, "unknown key 'n_fft'"),
        ({"encoder": []}, "encoder must be a table"),
        ({"decoder": {"dim": "wide"}}, "decoder.dim must be of type int"),
        ({"decoder": {"dim": 0}}, "dim must be a whole number of at least 1"),
        ({"decoder": {"dim": True}}, "decoder.dim must be of type int"),
        ({"decoder": {"kernel_size": 4}}, "kernel_size must be odd"),
        ({"decoder": {"dim": 40, "attention_prenet": True}}, "multiple of 32"),
        ({"decoder": {"hop_length": 160}}, "hop length (320) is not the decoder's (160)"),
        ({"encoder": {"n_fft": 100}}, "n_fft must not be below hop_length"),
        ({"encoder": {"bins": 0}}, "bins must be"),
        ({"encoder": {"bins": 642}}, "bins must not be above n_fft / 2 + 1 = 641, not 642"),
        (
            {"encoder": {"kind": "seanet", "strides": [2, 0]}},
            "strides must be a list of whole numbers",
        ),
        ({"quantizer": {"codebook_size": 1}}, "codebook_size must lie between"),
        ({"sample_rate": 0}, "sample_rate must be a whole number of at least 1"),
    ],
)
def test_wrong_values_are_named(values, words):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configurations_are_frozen():
    with pytest.raises(AttributeError):
        compact().decoder.dim = 3  # type: ignore[misc]


def test_rates_follow_from_the_sizes():
    config = compact()
    assert (config.hop_length, config.frame_rate, config.bitrate) == (320, 75.0, 975.0)
    assert config.quantizer.bits_per_code == 13
