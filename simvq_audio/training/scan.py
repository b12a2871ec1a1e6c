"""From folders and archives of audio to manifest rows, and from rows to a split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.errors import AudioError, ConfigError, os_error_text
from simvq_audio.folders import find_files, is_hidden
from simvq_audio.training.manifest import ManifestRow
from simvq_audio.training.read_ahead import ordered_map
from simvq_audio.training.recordings import RecordingFiles, SpanReader, tar_members
from simvq_audio.training.spectrum_end import SpectrumEnd


@dataclass(frozen=True)
class Candidate:
    """A file that may be a recording; the attributes are those of ``ManifestRow``."""

    path: str
    speaker: str | None
    shard: str | None = None
    subset: str | None = None


def find_candidates(source: Path, speaker_pattern: str | None = None) -> list[Candidate]:
    """Audio files, by suffix, in a folder and below it, or in a tar archive.

    Hidden files and folders are left out.

    Args:
        source: folder, or uncompressed tar archive.
        speaker_pattern: regular expression, searched in the path below ``source`` (with ``/``);
            its first group is the speaker. Default: the path of the file's folder; unknown
            for files in ``source`` itself.

    Raises:
        ConfigError: the pattern is not a regular expression, has no group, or does not match a
            file.
        AudioError: there is no such folder or archive, or it holds no audio, or a folder in it
            cannot be read.
    """
    pattern = _compiled(speaker_pattern)
    shard = None
    if source.is_dir():
        found, errors = find_files(source, AUDIO_SUFFIXES)
        if errors:
            raise AudioError(os_error_text(errors[0]))
        named = [
            (path.relative_to(source).as_posix(), str(path.absolute())) for path in sorted(found)
        ]
    else:
        shard = str(source.absolute())
        named = [(name, name) for name, _, _ in tar_members(source)]
    candidates = []
    for name, path in named:
        pure = PurePosixPath(name)
        if pure.suffix.lower() in AUDIO_SUFFIXES and not is_hidden(pure):
            candidates.append(Candidate(path, _speaker(pure, pattern), shard))
    if not candidates:
        raise AudioError(f"{source} holds no audio files ({', '.join(sorted(AUDIO_SUFFIXES))})")
    return candidates


def scan(
    candidates: Sequence[Candidate],
    *,
    decode: bool,
    threads: int,
    advance: Callable[[float], None],
) -> tuple[list[ManifestRow], list[str]]:
    """Read durations and rates.

    Args:
        decode: read each recording whole, to find damage and the bandwidth; otherwise only the
            header.
        threads: recordings that are read at a time.
        advance: called with 1 for each recording.

    Returns:
        a row for each recording, and a line for each that cannot be read.

    Raises:
        AudioError: an archive cannot be read, or none of the recordings.
    """
    files = RecordingFiles(candidate.shard for candidate in candidates)

    def examine(candidate: Candidate) -> ManifestRow | str:
        try:
            with files.open(candidate.path, candidate.shard) as reader:
                samples, bandwidth = _measure(reader) if decode else (reader.num_samples, None)
                if not samples:
                    raise AudioError(f"{reader.name}: holds no samples")
                return ManifestRow(
                    path=candidate.path,
                    duration=samples / reader.sample_rate,
                    sample_rate=reader.sample_rate,
                    speaker=candidate.speaker,
                    subset=candidate.subset,
                    bandwidth_hz=bandwidth,
                    shard=candidate.shard,
                )
        except AudioError as error:
            return str(error)

    rows: list[ManifestRow] = []
    unreadable: list[str] = []
    for result in ordered_map(examine, candidates, threads):
        advance(1)
        (unreadable if isinstance(result, str) else rows).append(result)  # type: ignore[arg-type]
    if not rows:
        raise AudioError(
            f"none of {len(candidates)} recordings can be read; the first: {unreadable[0]}"
        )
    return rows, unreadable


def split_speakers(
    rows: Sequence[ManifestRow], dev_share: float, seed: int
) -> tuple[list[ManifestRow], list[ManifestRow]]:
    """Split into a training and a development part without common speakers.

    Speakers are added to the development part in random order unless it would exceed its share. If
    every speaker is too large, it gets the smallest; with a single speaker, or a share of 0, it is
    empty.

    Args:
        dev_share: part of the total duration, 0 to less than 1.
        seed: not negative; the split depends only on it and the rows.

    Returns:
        rows of the two parts in the order given, with ``subset`` "train" or "dev".

    Raises:
        ConfigError: a value is out of range.
    """
    if not 0 <= dev_share < 1:
        raise ConfigError(f"the share of the development part must be 0 to 1, not {dev_share}")
    if seed < 0:
        raise ConfigError(f"the seed must be 0 or more, not {seed}")
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.speaker_label] = seconds.get(row.speaker_label, 0.0) + row.duration
    # Tolerance for rounding, where a speaker is exactly the share.
    wanted = dev_share * sum(seconds.values()) * (1 + 1e-9)
    speakers = sorted(seconds)
    dev: set[str] = set()
    length = 0.0
    for index in np.random.default_rng(seed).permutation(len(speakers)):
        speaker = speakers[index]
        if length + seconds[speaker] <= wanted:
            dev.add(speaker)
            length += seconds[speaker]
    if not dev and wanted and len(speakers) > 1:
        dev.add(min(speakers, key=lambda speaker: seconds[speaker]))
    parts: tuple[list[ManifestRow], list[ManifestRow]] = ([], [])
    for row in rows:
        in_dev = row.speaker_label in dev
        parts[in_dev].append(replace(row, subset="dev" if in_dev else "train"))
    return parts


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"'{pattern}' is not a regular expression ({error})") from error
    if not compiled.groups:
        raise ConfigError(f"'{pattern}' has no group; put the speaker's part in parentheses")
    return compiled


def _speaker(path: PurePosixPath, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        folder = path.parent.as_posix()
        return None if folder == "." else folder
    match = pattern.search(path.as_posix())
    if not match or not match[1]:
        raise ConfigError(f"'{pattern.pattern}' finds no speaker in '{path.as_posix()}'")
    return match[1]


def _measure(reader: SpanReader) -> tuple[int, float]:
    """Number of samples and bandwidth."""
    spectrum = SpectrumEnd(reader.sample_rate)
    samples = 0
    for block in reader.blocks():
        spectrum.add(block)
        samples += len(block)
    return samples, spectrum.bandwidth_hz()
