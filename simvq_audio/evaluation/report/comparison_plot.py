"""A picture of two recordings: waveforms, spectrograms, difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.audio import read_audio, resample
from simvq_audio.errors import AudioError
from simvq_audio.evaluation.report.figures import SERIES, any_letters, new_figure
from simvq_audio.evaluation.report.spectra import COLOURS, DYNAMIC_RANGE, spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Larger differences have the same colour.
_DIFFERENCE_RANGE = 30.0
_WAVEFORM_COLUMNS = 1500


@dataclass(frozen=True)
class RecordingPair:
    """Two waveforms of one rate.

    Attributes:
        names: of the original and the decoded recording, for titles.
        original, decoded: (samples,), full scale 1; their lengths may differ.
        sample_rate: of both, in Hz.
        notes: on how they were made comparable, a sentence each.
    """

    names: tuple[str, str]
    original: np.ndarray
    decoded: np.ndarray
    sample_rate: int
    notes: tuple[str, ...]


def read_pair(original: Path, decoded: Path) -> RecordingPair:
    """Read two recordings, resample the second to the rate of the first, mix down channels.

    Raises:
        AudioError: a file cannot be read, or holds no samples.
    """
    notes = []
    waveforms, rates = [], []
    for path in (original, decoded):
        waveform, rate = read_audio(path)
        if not waveform.size:
            raise AudioError(f"{path}: holds no samples")
        if len(waveform) > 1:
            notes.append(f"{path}: the mean of its {len(waveform)} channels is drawn")
        waveforms.append(waveform.mean(0, keepdims=True))
        rates.append(rate)
    if rates[0] != rates[1]:
        waveforms[1] = resample(waveforms[1], rates[1], rates[0])
        notes.append(f"{decoded}: resampled from {rates[1]} to {rates[0]} Hz, the rate of IN")
    lengths = [waveform.shape[1] for waveform in waveforms]
    if lengths[0] != lengths[1]:
        first, second = (f"{length / rates[0]:.3f}" for length in lengths)
        notes.append(f"{first} and {second} s long; the difference is over the shorter")
    names = (original.name, decoded.name)
    return RecordingPair(names, waveforms[0][0], waveforms[1][0], rates[0], tuple(notes))


def write_pair(pair: RecordingPair, target: Path) -> None:
    """Write the figure; the suffix of ``target`` says in which format.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = pair_figure(pair)
    with atomic_path(target) as temporary, any_letters():
        figure.savefig(temporary, dpi=120)


def pair_figure(pair: RecordingPair) -> Figure:
    """Draw waveforms, spectrograms, and the difference of the spectrograms in dB.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(11, 8.5)
    figure.patch.set(facecolor="white", alpha=1)
    rate = pair.sample_rate
    longer = max(len(pair.original), len(pair.decoded))
    shorter = min(len(pair.original), len(pair.decoded))
    both = [np.pad(w, (0, longer - len(w))) for w in (pair.original, pair.decoded)]
    levels = [spectrogram(waveform, rate) for waveform in both]
    loudest = levels[0].max()
    duration = longer / rate
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1.6, 1.6))
    extent = (0, duration, 0, rate / 2000)
    peak = max(float(np.abs(np.concatenate(both)).max()), 1e-4)
    for column, name in enumerate(pair.names):
        axes = figure.add_subplot(grid[0, column])
        _draw_waveform(axes, both[column], duration, SERIES[column])
        axes.set(xlim=(0, duration), ylim=(-1.05 * peak, 1.05 * peak), ylabel="amplitude")
        axes.set_title(f"{('original', 'decoded')[column]}: {name}", fontsize=10, parse_math=False)
        axes = figure.add_subplot(grid[1, column])
        image = axes.imshow(
            levels[column],
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap=COLOURS,
            vmin=loudest - DYNAMIC_RANGE,
            vmax=loudest,
        )
        axes.set_ylabel("kHz")
    figure.colorbar(image, ax=figure.axes[1::2], label="dB of full scale")
    axes = figure.add_subplot(grid[2, :])
    quietest = loudest - DYNAMIC_RANGE
    # No difference where both are too quiet to be visible.
    seen = [np.maximum(each, quietest) for each in levels]
    difference = seen[1] - seen[0]
    columns = difference.shape[1]
    difference[:, (np.arange(columns) + 0.5) * longer / columns > shorter] = np.nan
    image = axes.imshow(
        difference,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="RdBu_r",
        vmin=-_DIFFERENCE_RANGE,
        vmax=_DIFFERENCE_RANGE,
    )
    axes.set(xlabel="seconds", ylabel="kHz")
    axes.set_title("difference of levels: decoded minus original", fontsize=10)
    figure.colorbar(image, ax=axes, label="dB", extend="both")
    if pair.notes:
        figure.supxlabel("\n".join(pair.notes), fontsize=8, parse_math=False)
    return figure


def _draw_waveform(axes, waveform: np.ndarray, duration: float, colour: str) -> None:
    """Draw the range of the samples in each column, fast for hours of audio."""
    columns = min(_WAVEFORM_COLUMNS, len(waveform))
    starts = np.linspace(0, len(waveform), columns, endpoint=False).astype(int)
    high = np.maximum.reduceat(waveform, starts)
    low = np.minimum.reduceat(waveform, starts)
    time = (np.arange(columns) + 0.5) * duration / columns
    axes.fill_between(time, low, high, color=colour, linewidth=0.6, step="mid")
    axes.grid(alpha=0.2)
