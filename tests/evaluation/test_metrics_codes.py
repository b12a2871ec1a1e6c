"""Bit rates, speeds and stability of known codings."""

from __future__ import annotations

import numpy as np
import pytest
from signals import noise, trial

from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics.codes import (
    DecodeSpeed,
    EncodeSpeed,
    FileRate,
    PayloadRate,
    Stability,
)
from simvq_audio.evaluation.trial import CodingRecord

ALL = [PayloadRate, FileRate, EncodeSpeed, DecodeSpeed, Stability]


def coded(channels: int = 1, reencoded: np.ndarray | None = None, seconds: float = 2.0):
    indices = np.arange(150 * channels, dtype=np.int32).reshape(channels, 150)
    coding = CodingRecord(
        indices,
        codebook_size=8192,
        payload_bits=13 * indices.size,
        file_bytes=50 + 250 * channels,
        encode_seconds=0.02,
        decode_seconds=0.04,
        reencoded=reencoded,
    )
    sound = noise(round(16_000 * seconds))
    return trial(sound, sound, coding=coding)


def test_rates_and_speeds():
    assert PayloadRate().score(coded()) == pytest.approx(0.975)
    assert FileRate().score(coded()) == pytest.approx(1.2)
    assert EncodeSpeed().score(coded()) == pytest.approx(100)
    assert DecodeSpeed().score(coded()) == pytest.approx(50)


def test_they_count_one_channel():
    assert PayloadRate().score(coded(2)) == pytest.approx(0.975)
    assert FileRate().score(coded(2)) == pytest.approx(1.1)
    assert EncodeSpeed().score(coded(2)) == pytest.approx(200)


def test_stability_is_the_share_of_codes_kept():
    indices = coded().coding.indices
    again = indices.copy()
    again[0, :15] += 1
    assert Stability().score(coded(reencoded=indices)) == 100
    assert Stability().score(coded(reencoded=again)) == pytest.approx(90)
    # What the second coding lacks is not kept; what it has beyond is not asked for.
    assert Stability().score(coded(reencoded=indices[:, :120])) == pytest.approx(80)
    assert Stability().score(coded(reencoded=np.pad(indices, ((0, 0), (0, 9))))) == 100


@pytest.mark.parametrize("metric", ALL)
def test_decoded_files_alone_do_not_tell(metric):
    assert metric.needs_coding
    with pytest.raises(UnscorableError, match="only of codecs that are run here"):
        metric().score(trial(noise(100), noise(100)))
    with pytest.raises(UnscorableError, match="the original is empty"):
        metric().score(coded(seconds=0))


def test_stability_needs_the_second_coding():
    with pytest.raises(UnscorableError, match="was not encoded again"):
        Stability().score(coded())
