"""Sample rate conversion: exact lengths, no delay, the same values however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.audio import Resampler, resample, resampled_length
from simvq_audio.errors import AudioError

PAIRS = [
    (44_100, 24_000),
    (24_000, 44_100),
    (8_000, 24_000),
    (24_000, 8_000),
    (48_000, 24_000),
    (192_000, 24_000),
    (24_000, 192_000),
    (384_000, 1_000),
    (1_000, 384_000),
    (24_000, 23_999),
    (12_347, 24_000),
    (768_000, 24_000),
    (24_000, 24_000),
]


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    """Return noise, float32, shape (samples, channels)."""
    generator = np.random.default_rng(2)
    return generator.normal(0, 0.2, (num_samples, channels)).astype(np.float32)


def in_blocks(samples: np.ndarray, in_rate: int, out_rate: int, lengths: list[int]) -> np.ndarray:
    """Push ``samples`` in blocks of the given lengths, the rest in the final one."""
    resampler = Resampler(in_rate, out_rate, samples.shape[1])
    output, start = [], 0
    for length in lengths:
        output.append(resampler.push(samples[start : start + length]))
        start += length
    output.append(resampler.push(samples[start:], final=True))
    return np.concatenate(output)


@pytest.mark.parametrize(("in_rate", "out_rate"), PAIRS)
@pytest.mark.parametrize("num_samples", [0, 1, 2, 3, 50, 999, 5003])
def test_lengths_are_exact(in_rate: int, out_rate: int, num_samples: int) -> None:
    # The length that the recording has at the other rate, rounded up, in integers.
    expected = (num_samples * out_rate + in_rate - 1) // in_rate
    assert resampled_length(num_samples, in_rate, out_rate) == expected
    whole = in_blocks(noise(num_samples, 2), in_rate, out_rate, [])
    assert whole.shape == (expected, 2) and whole.dtype == np.float32
    then_empty = in_blocks(noise(num_samples, 2), in_rate, out_rate, [num_samples])
    np.testing.assert_array_equal(then_empty, whole)


@given(
    in_rate=st.integers(1_000, 768_000),
    out_rate=st.integers(1_000, 48_000),
    num_samples=st.integers(0, 3_000),
    lengths=st.lists(st.integers(0, 700), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_any_rates_and_any_blocks(
    in_rate: int, out_rate: int, num_samples: int, lengths: list[int]
) -> None:
    samples = noise(num_samples)
    whole = in_blocks(samples, in_rate, out_rate, [])
    assert len(whole) == resampled_length(num_samples, in_rate, out_rate)
    np.testing.assert_allclose(
        in_blocks(samples, in_rate, out_rate, lengths), whole, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("in_rate", "out_rate"), PAIRS)
def test_how_the_input_is_cut_changes_nothing(in_rate: int, out_rate: int) -> None:
    samples = noise(30_000, 2)
    whole = in_blocks(samples, in_rate, out_rate, [])
    for lengths in ([777] * 38, [29_999], [1] * 500, [0, 15_000, 0]):
        np.testing.assert_allclose(
            in_blocks(samples, in_rate, out_rate, lengths), whole, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(("in_rate", "out_rate"), PAIRS)
@pytest.mark.parametrize("time", [0.25, 0.5, 0.9])
def test_a_click_stays_in_place(in_rate: int, out_rate: int, time: float) -> None:
    samples = np.zeros((in_rate, 1), np.float32)
    position = int(in_rate * time)
    samples[position] = 1
    energy = resample(samples.T, in_rate, out_rate)[0] ** 2
    centre = (np.arange(len(energy)) * energy).sum() / energy.sum() / out_rate
    # A hundredth of the longer sampling period: a delay of one sample is far more.
    assert abs(centre - position / in_rate) < 0.01 / min(in_rate, out_rate)


@pytest.mark.parametrize(("in_rate", "out_rate"), PAIRS)
def test_a_sine_keeps_amplitude_and_phase(in_rate: int, out_rate: int) -> None:
    frequency = 0.1 * min(in_rate, out_rate)

    def sine(rate: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * frequency * np.arange(rate // 2) / rate)

    output = resample(sine(in_rate)[np.newaxis].astype(np.float32), in_rate, out_rate)[0]
    # Away from the ends, where the sine meets the silence around it.
    middle = slice(out_rate // 8, 3 * out_rate // 8)
    np.testing.assert_allclose(output[middle], sine(out_rate)[middle], rtol=0, atol=1e-4)


def test_the_last_sample_has_its_true_value() -> None:
    # 4411 samples at 44.1 kHz end just behind output sample 2400, which soxr alone leaves out.
    sine = np.sin(np.arange(4500) / 20)[np.newaxis].astype(np.float32)
    sine[:, 4411:] = 0
    output = resample(sine[:, :4411], 44_100, 24_000)
    assert output.shape == (1, 2401)
    np.testing.assert_allclose(output, resample(sine, 44_100, 24_000)[:, :2401], atol=1e-6)
    assert abs(output[0, -1]) > 0.05


def test_channels_do_not_mix() -> None:
    samples = noise(4000, 3)
    together = resample(samples.T, 44_100, 24_000)
    for channel in range(3):
        alone = resample(samples.T[channel : channel + 1], 44_100, 24_000)
        np.testing.assert_allclose(together[channel], alone[0], rtol=0, atol=1e-6)


def test_equal_rates_change_nothing() -> None:
    samples = noise(1000, 2)
    np.testing.assert_array_equal(resample(samples.T, 24_000, 24_000), samples.T)
    np.testing.assert_array_equal(in_blocks(samples, 24_000, 24_000, [10, 0, 90]), samples)


@pytest.mark.parametrize("num_samples", [0, 1, 500, 1000])
def test_a_wanted_length_cuts_or_extends(num_samples: int) -> None:
    samples = noise(1000, 2).T
    whole = resample(samples, 44_100, 24_000)
    output = resample(samples, 44_100, 24_000, num_samples)
    assert output.shape == (2, num_samples)
    common = min(num_samples, whole.shape[1])
    np.testing.assert_array_equal(output[:, :common], whole[:, :common])
    assert not output[:, common:].any()


@pytest.mark.parametrize("rate", [-1, 0, 999, 768_001, 2**31 - 1])
def test_rates_out_of_range(rate: int) -> None:
    for rates in ((rate, 24_000), (24_000, rate)):
        with pytest.raises(AudioError, match=f"{rate} Hz"):
            Resampler(*rates, channels=1)


def test_misuse() -> None:
    resampler = Resampler(44_100, 24_000, channels=2)
    for shape in ((10,), (10, 1), (2, 10)):
        with pytest.raises(AudioError, match="shape"):
            resampler.push(np.zeros(shape, np.float32))
    with pytest.raises(AudioError, match="shape"):
        resample(np.zeros(10, np.float32), 44_100, 24_000)
    resampler.push(np.zeros((0, 2), np.float32), final=True)
    with pytest.raises(AudioError, match="final"):
        resampler.push(np.zeros((0, 2), np.float32))
