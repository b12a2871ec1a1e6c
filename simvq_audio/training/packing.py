"""Recordings of manifests into a packed folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from simvq_audio.errors import AudioError, ConfigError
from simvq_audio.training.manifest import ManifestRow, relative_name
from simvq_audio.training.packed import PackWriter
from simvq_audio.training.read_ahead import ordered_map
from simvq_audio.training.recordings import RecordingFiles, read_mono


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
        out: packed folder, which appears when all is done.
        root: folder that recordings are named relative to in the index.
        threads: recordings that are decoded at a time.
        advance: called with 1 for each recording that is done.

    Returns:
        the rows that were packed, with the true durations and rates, and one line for each that
        cannot be read. If that is all of them, nothing is written.

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
    """Yield a temporary folder beside ``target``; it takes that name if the block succeeds.

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
        # Inside the private temporary folder, a folder with the usual mode.
        folder = Path(outer, "new")
        folder.mkdir()
        yield folder
        if target.exists():
            target.rmdir()
        os.replace(folder, target)
