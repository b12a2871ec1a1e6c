"""Manifests: lists of recordings, one JSON object per line.

``path`` is absolute or relative to the manifest's folder; with ``shard``, the path of a tar
archive, it is the name of a member. Keys that ``ManifestRow`` lacks are ignored.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError

_TEXTS = ("path", "speaker", "subset", "source", "shard", "licence")
_NUMBERS = ("duration", "sample_rate", "bandwidth_hz")
_REQUIRED = ("path", "duration", "sample_rate", "speaker")


@dataclass(frozen=True)
class ManifestRow:
    """One recording.

    Attributes:
        path: absolute path of the file, or name of the member of ``shard``.
        duration: seconds.
        sample_rate: of the file, Hz.
        speaker: label within ``source``, or None if unknown.
        subset: part of a data set, for instance "train-clean-100".
        source: data set.
        bandwidth_hz: where the spectrum ends, if it ends below half the sample rate.
        shard: absolute path of a tar archive, or None for a plain file.
        licence: of the recording.
    """

    path: str
    duration: float
    sample_rate: int
    speaker: str | None
    subset: str | None = None
    source: str | None = None
    bandwidth_hz: float | None = None
    shard: str | None = None
    licence: str | None = None

    @property
    def speaker_label(self) -> str:
        """Speaker, unique over sources; recordings of unknown speakers of a source share one."""
        return f"{self.source or ''}/{self.speaker or 'unknown'}"

    def bandwidth_at(self, sample_rate: int) -> float:
        """Where the spectrum ends after conversion to ``sample_rate``, in Hz."""
        own = self.sample_rate / 2
        return min(own if self.bandwidth_hz is None else self.bandwidth_hz, own, sample_rate / 2)


def load_manifest(path: Path) -> list[ManifestRow]:
    """Read and check a manifest.

    Raises:
        ConfigError: it cannot be read or is empty, or a line is not a JSON object, lacks one of
            path, duration, sample_rate and speaker, or has an impossible value.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the manifest {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a manifest: it is not UTF-8 text") from error
    folder = path.parent.absolute()
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(_parse(line, folder))
            except ConfigError as error:
                raise ConfigError(f"{path} line {number}: {error}") from error
    if not rows:
        raise ConfigError(f"the manifest {path} lists no recordings")
    return rows


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write a manifest, whole or not at all; paths below its folder become relative to it.

    Raises:
        OSError: the folder does not exist or is not writable.
    """
    folder = path.parent.absolute()
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            values = {key: value for key, value in asdict(row).items() if value is not None}
            values["speaker"] = row.speaker
            located = "path" if row.shard is None else "shard"
            values[located] = relative_name(values[located], folder)
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def relative_name(path: str, folder: Path) -> str:
    """``path`` relative to ``folder`` if it is below it, else unchanged; with ``/`` separators."""
    try:
        return Path(path).relative_to(folder.absolute()).as_posix()
    except ValueError:
        return Path(path).as_posix()


def summary(rows: Sequence[ManifestRow]) -> str:
    """One line: number of recordings, hours, speakers, and how many recordings have each rate."""
    hours = sum(row.duration for row in rows) / 3600
    speakers = len({row.speaker_label for row in rows})
    rates = Counter(row.sample_rate for row in rows)
    by_rate = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(rates.items()))
    return f"{len(rows)} recordings, {hours:.2f} hours, {speakers} speakers, {by_rate}"


def _parse(line: str, folder: Path) -> ManifestRow:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not valid JSON ({error.msg})") from error
    if not isinstance(values, dict):
        raise ConfigError("is not a JSON object")
    for key in _REQUIRED:
        if key not in values:
            raise ConfigError(f"has no '{key}'")
    known: dict[str, Any] = {field.name: values.get(field.name) for field in fields(ManifestRow)}
    for key in _TEXTS:
        _check(key, known[key], isinstance(known[key], str), "a string", key in ("path",))
    for key in _NUMBERS:
        value = known[key]
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        good = good and math.isfinite(value) and value > 0
        _check(key, value, good, "a number above 0", key in _REQUIRED)
    if int(known["sample_rate"]) != known["sample_rate"]:
        raise ConfigError(f"'sample_rate' must be a whole number, not {known['sample_rate']}")
    known["sample_rate"] = int(known["sample_rate"])
    located = "path" if known["shard"] is None else "shard"
    known[located] = str(folder / known[located])
    return ManifestRow(**known)


def _check(key: str, value: Any, good: bool, wanted: str, required: bool) -> None:
    if not good and (required or value is not None):
        raise ConfigError(f"'{key}' must be {wanted}, not {json.dumps(value)}")
