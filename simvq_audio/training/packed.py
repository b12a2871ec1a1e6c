"""Packed speech: every recording of a training set as int16, in memory-mapped shards.

A packed folder holds ``audio-00000.int16`` and so on (recordings one after the other, mono,
little-endian; none crosses from one shard to the next) and ``index.json``: its version, the
sample rate, the shards with their lengths in samples, and one row per recording.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from simvq_audio.errors import AudioError, ConfigError
from simvq_audio.training.manifest import ManifestRow, relative_name
from simvq_audio.training.read_ahead import ordered_map
from simvq_audio.training.recordings import RecordingFiles, read_mono
from simvq_audio.training.sampling import CropSampler, Draw, crop_start

INDEX = "index.json"
_VERSION = 2
_FULL_SCALE = 32_768
_BYTES = 2


@dataclass(frozen=True)
class Recording:
    """One recording in a packed folder.

    Attributes:
        name: of the original file.
        speaker: label, unique over sources.
        shard: index of the file that holds it.
        offset, samples: its position there, in samples.
        bandwidth_hz: end of its spectrum; losses ignore what is above.
    """

    name: str
    speaker: str
    shard: int
    offset: int
    samples: int
    bandwidth_hz: float


class PackWriter:
    """Writes a packed folder; a context manager. The index is written last.

    Args:
        folder: an existing folder without packed speech.
        sample_rate: of the recordings, Hz.
        shard_bytes: maximum size of a shard with more than one recording.
    """

    def __init__(self, folder: Path, sample_rate: int, shard_bytes: int = 2**30) -> None:
        self._folder = folder
        self._sample_rate = sample_rate
        self._shard_bytes = shard_bytes
        self._recordings: list[Recording] = []
        self._lengths: list[int] = []
        self._file: BinaryIO | None = None

    def add(self, name: str, speaker: str, waveform: np.ndarray, bandwidth_hz: float) -> None:
        """Append a recording: (samples,) float, 1.0 full scale; larger values are clipped."""
        samples = np.rint(waveform * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1)
        full = self._lengths and (
            (self._lengths[-1] + len(samples)) * _BYTES > self._shard_bytes and self._lengths[-1]
        )
        if self._file is None or full:
            self._close()
            self._file = open(self._folder / _shard_name(len(self._lengths)), "wb")
            self._lengths.append(0)
        self._file.write(samples.astype("<i2").tobytes())
        self._recordings.append(
            Recording(
                name=name,
                speaker=speaker,
                shard=len(self._lengths) - 1,
                offset=self._lengths[-1],
                samples=len(samples),
                bandwidth_hz=float(bandwidth_hz),
            )
        )
        self._lengths[-1] += len(samples)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        if exception is None:
            index = {
                "version": _VERSION,
                "sample_rate": self._sample_rate,
                "shards": [
                    {"file": _shard_name(number), "samples": length}
                    for number, length in enumerate(self._lengths)
                ],
                "recordings": [asdict(recording) for recording in self._recordings],
            }
            (self._folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def pack(
    rows: Sequence[ManifestRow],
    out: Path,
    *,
    root: Path,
    sample_rate: int,
    threads: int,
    advance: Callable[[float], None],
) -> tuple[list[ManifestRow], list[str]]:
    """Decode, mix down, resample and pack recordings.

    Args:
        rows: what to pack.
        out: packed folder, which appears when complete.
        root: folder that recordings are named relative to in the index.
        threads: recordings decoded at a time.
        advance: called with 1 for each recording.

    Returns:
        the rows that were packed, with the true durations and rates, and a line for each that
        cannot be read. If none can, nothing is written.

    Raises:
        ConfigError: ``out`` exists and is not empty.
        AudioError: an archive cannot be read.
        OSError: ``out`` cannot be written.
    """
    files = RecordingFiles(row.shard for row in rows)

    def decode(row: ManifestRow) -> tuple[ManifestRow, np.ndarray | str]:
        try:
            with files.open(row.path, row.shard) as reader:
                mono = read_mono(reader, sample_rate)
                true = replace(
                    row, duration=len(mono) / sample_rate, sample_rate=reader.sample_rate
                )
        except AudioError as error:
            return row, str(error)
        return true, mono

    packed: list[ManifestRow] = []
    unreadable: list[str] = []
    with _new_folder(out) as folder:
        with PackWriter(folder, sample_rate) as writer:
            for row, result in ordered_map(decode, rows, threads):
                advance(1)
                if isinstance(result, str):
                    unreadable.append(result)
                    continue
                name = relative_name(row.path, root)
                writer.add(name, row.speaker_label, result, row.bandwidth_at(sample_rate))
                packed.append(row)
        if not packed:
            raise AudioError(
                f"none of {len(rows)} recordings can be read; the first: {unreadable[0]}"
            )
    return packed, unreadable


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; rename it if the block succeeds.

    Raises:
        ConfigError: ``target`` exists and is not an empty folder.
        OSError: it cannot be made.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{target} exists already; remove it, or choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True
    ) as outer:
        # A folder with the usual mode, inside the private temporary folder.
        folder = Path(outer, "new")
        folder.mkdir()
        yield folder
        if target.exists():
            target.rmdir()
        os.replace(folder, target)


class PackedSpeech:
    """A ``CropSource`` over a packed folder.

    Args:
        folder: made by ``simvq-audio data pack``.
        sample_rate: of the crops, in Hz.
        crop_samples: length of a crop; shorter recordings are repeated to fill it.
        speaker_power, gain_db, seed: see ``CropSampler``.

    Raises:
        ConfigError: the folder is not a packed one, is incomplete, or has another sample rate; or a
            value is out of range.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample_rate: int,
        crop_samples: int,
        speaker_power: float,
        gain_db: float,
        seed: int,
    ) -> None:
        index = _read_index(folder)
        if index["sample_rate"] != sample_rate:
            raise ConfigError(
                f"{folder} was packed at {index['sample_rate']} Hz, the model wants "
                f"{sample_rate} Hz"
            )
        rows = index["recordings"]
        self._folder = folder
        self._shards = [_map_shard(folder / s["file"], s["samples"]) for s in index["shards"]]
        self._shard = np.array([row["shard"] for row in rows], np.int64)
        self._offset = np.array([row["offset"] for row in rows], np.int64)
        self._samples = np.array([row["samples"] for row in rows], np.int64)
        self._bandwidth = np.array([row["bandwidth_hz"] for row in rows], np.float32)
        self._crop = crop_samples
        self._sampler = CropSampler(
            [row["speaker"] for row in rows],
            self._samples / sample_rate,
            speaker_power=speaker_power,
            gain_db=gain_db,
            seed=seed,
        )
        self._held: Tensor | None = None

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self._samples)

    def to(self, device: torch.device | str) -> PackedSpeech:
        """Hold all audio on a device as int16, 2 bytes per sample; return self.

        ``batch`` then cuts the same crops there.

        Raises:
            ConfigError: it does not fit.
        """
        total = sum(len(shard) for shard in self._shards)
        try:
            held = torch.empty(total, dtype=torch.int16, device=device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{self._folder} ({total * _BYTES / 1e9:.1f} GB) does not fit in the memory of "
                f"{device}; leave it on disk, or pack less"
            ) from error
        position = 0
        for shard in self._shards:
            # In pieces, since a copy of a whole shard would double the host's memory.
            for first in range(0, len(shard), 1 << 24):
                piece = torch.from_numpy(shard[first : first + (1 << 24)].astype(np.int16))
                held[position : position + len(piece)] = piece.to(device)
                position += len(piece)
        starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._start_on_device = self._offset + starts[self._shard]
        self._held = held
        return self

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See ``CropSource.batch``; after ``to(device)``, both tensors are there."""
        draw = self._sampler.draw(step, size, rank, world_size)
        bandwidths = torch.from_numpy(self._bandwidth[draw.recordings])
        starts = crop_start(draw.positions, self._samples[draw.recordings], self._crop)
        if self._held is None:
            return self._cut(draw, starts), bandwidths
        return self._cut_on_device(draw, starts, self._held), _send(bandwidths, self._held)

    def _cut(self, draw: Draw, starts: np.ndarray) -> Tensor:
        waveforms = np.empty((len(starts), self._crop), np.float32)
        for row, (pick, start) in enumerate(zip(draw.recordings, starts)):
            first = self._offset[pick] + start
            length = min(self._crop, self._samples[pick])
            clip = self._shards[self._shard[pick]][first : first + length]
            waveforms[row] = np.resize(clip, self._crop)
        waveforms *= _scale(draw)
        return torch.from_numpy(waveforms)

    def _cut_on_device(self, draw: Draw, starts: np.ndarray, held: Tensor) -> Tensor:
        # The uploads are some kilobytes; the host does not wait for the device.
        places = np.stack(
            [self._start_on_device[draw.recordings], starts, self._samples[draw.recordings]]
        )
        begin, start, samples = _send(torch.from_numpy(places), held)[..., None]
        within = (start + torch.arange(self._crop, device=held.device)) % samples
        return held[begin + within].float() * _send(torch.from_numpy(_scale(draw)), held)


def _scale(draw: Draw) -> np.ndarray:
    """Factor (size, 1) from int16 to the waveform; one product, so equal on every device."""
    return (draw.gains / np.float32(_FULL_SCALE))[:, None]


def _send(tensor: Tensor, to: Tensor) -> Tensor:
    return tensor.to(to.device, non_blocking=True)


def _shard_name(number: int) -> str:
    return f"audio-{number:05d}.int16"


def _read_index(folder: Path) -> dict[str, Any]:
    how = "make it with 'simvq-audio data pack MANIFEST OUT'"
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{folder} holds no packed speech ({error.strerror}); {how}") from error
    except ValueError as error:
        raise ConfigError(f"{folder / INDEX} is damaged; pack the data again") from error
    if not isinstance(index, dict) or index.get("version") != _VERSION:
        raise ConfigError(f"{folder} was packed by another version of this program; {how} again")
    return index


def _map_shard(path: Path, samples: int) -> np.ndarray:
    try:
        shard = np.memmap(path, dtype="<i2", mode="r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is missing or cannot be read; pack the data again") from error
    if len(shard) != samples:
        raise ConfigError(f"{path} is damaged: {len(shard)} samples, not {samples}; pack again")
    return shard
