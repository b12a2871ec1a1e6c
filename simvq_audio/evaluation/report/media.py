"""Sound and spectrograms of recordings for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from simvq_audio.audio import AudioReader, resample
from simvq_audio.errors import AudioError
from simvq_audio.evaluation.report.spectra import picture, spectrogram
from simvq_audio.evaluation.results import FileResult, SystemResult

# Limits the size of a player on the page.
MAX_SECONDS = 30.0
MAX_RATE = 48_000
MAX_CHANNELS = 2


@dataclass(frozen=True)
class Signal:
    """One sound for the page, or the reason that there is none.

    Attributes:
        name: "Original", or that of the system.
        flac: base64 of a FLAC file.
        spectrogram: base64 of a WebP image.
        problem: why there is no sound.
    """

    name: str
    flac: str | None = None
    spectrogram: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Media:
    """The sounds of a recording's card.

    Attributes:
        seconds: of the longest signal.
        whole_seconds: of the recording, if only its start is there.
        max_kilohertz: upper end of the spectrograms.
        signals: the original, then the systems in the report's order.
    """

    seconds: float
    whole_seconds: float | None
    max_kilohertz: float
    signals: tuple[Signal, ...]


def recording_media(files: Mapping[str, FileResult], systems: tuple[SystemResult, ...]) -> Media:
    """Read a recording and its decoded files.

    The spectrograms have the time and frequency range and the colours of the original's. A decoded
    file that cannot be read is left out with its reason.

    Args:
        files: of this recording, by system; at least one.

    Raises:
        AudioError: the original cannot be read.
    """
    any_file = next(iter(files.values()))
    original, rate = _read(any_file.reference_path, 0.0)
    sounds: list[tuple[str, np.ndarray | None, int, str | None]] = [
        ("Original", original, rate, None)
    ]
    for system in systems:
        sounds.append((system.name, *_decoded(system, files.get(system.name))))
    seconds = max(sound.shape[1] / of for _, sound, of, _ in sounds if sound is not None)
    samples = max(1, round(seconds * rate))
    loudest: float | None = None
    signals = []
    for name, sound, sound_rate, problem in sounds:
        if sound is None:
            signals.append(Signal(name, problem=problem))
            continue
        mono = resample(sound.mean(0, keepdims=True), sound_rate, rate, samples)[0]
        levels = spectrogram(mono, rate)
        loudest = float(levels.max()) if loudest is None else loudest
        signals.append(Signal(name, _flac(sound, sound_rate), _base64(picture(levels, loudest))))
    whole = any_file.duration if any_file.duration > MAX_SECONDS + 0.5 else None
    return Media(seconds, whole, rate / 2000, tuple(signals))


def _decoded(
    system: SystemResult, file: FileResult | None
) -> tuple[np.ndarray | None, int, str | None]:
    if file is None:
        return None, 0, "not decoded by this system"
    if file.decoded_path is None:
        return None, 0, "its decoded file was not kept"
    try:
        delay = system.delay / system.delay_rate if system.delay_rate else 0.0
        return *_read(file.decoded_path, delay), None
    except AudioError as error:
        return None, 0, str(error)


def _read(path: str, delay: float) -> tuple[np.ndarray, int]:
    """The start of a recording after ``delay`` seconds: (channels, samples) and rate.

    Raises:
        AudioError: it cannot be read, or is empty.
    """
    with AudioReader(path) as reader:
        rate = reader.sample_rate
        skip = round(delay * rate)
        wanted = round(MAX_SECONDS * rate)
        sound = np.concatenate(list(_first(reader, skip + wanted)), dtype=np.float32).T
    if skip < 0:
        sound = np.pad(sound, ((0, 0), (-skip, 0)))
    sound = sound[:MAX_CHANNELS, max(0, skip) :][:, :wanted]
    if not sound.size:
        raise AudioError(f"{path}: holds no samples")
    if rate > MAX_RATE:
        return resample(sound, rate, MAX_RATE), MAX_RATE
    return sound, rate


def _first(reader: AudioReader, samples: int) -> Iterator[np.ndarray]:
    yield np.empty((0, reader.channels), np.float32)
    for block in reader.blocks():
        yield block
        samples -= len(block)
        if samples <= 0:
            return


def _flac(sound: np.ndarray, sample_rate: int) -> str:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(sound.T, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return _base64(buffer.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
