"""Pack recordings into one int16 file for training.

    python data_prep/pack.py MANIFEST OUT

MANIFEST has one JSON object a line: ``path`` (relative to the manifest), or ``path`` inside a tar
archive named by ``shard``; and, if known, ``speaker``, ``source``, ``bandwidth_hz``. Everything
soundfile reads is taken, mixed down to one channel and resampled.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.audio import read_audio, resample
from simvq_audio.errors import AudioError
from simvq_audio.training.packed import Recording, write_index


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sample-rate", type=int, default=24_000)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    try:
        lines = args.manifest.read_text().splitlines()
    except OSError as error:
        print(f"pack.py: error: cannot read {args.manifest}: {error.strerror}", file=sys.stderr)
        return 1
    rows = [json.loads(line) for line in lines]
    args.out.mkdir(parents=True, exist_ok=True)
    recordings: list[Recording] = []
    unreadable: list[str] = []
    offset = 0
    work = ((row, data, args.sample_rate) for row, data in _bytes(rows, args.manifest.parent))
    with Pool(args.jobs) as pool, open(args.out / "audio.int16", "wb") as audio:
        for row, samples, rate, problem in pool.imap(_decode, work, chunksize=16):
            if problem:
                unreadable.append(problem)
                continue
            audio.write(samples.tobytes())
            recordings.append(
                Recording(
                    name=row["path"],
                    speaker=f"{row.get('source', '')}/{row.get('speaker') or 'unknown'}",
                    offset=offset,
                    samples=len(samples),
                    bandwidth_hz=float(min(row.get("bandwidth_hz", rate / 2), rate / 2)),
                )
            )
            offset += len(samples)
    write_index(args.out, args.sample_rate, recordings)
    hours = offset / args.sample_rate / 3600
    speakers = len({r.speaker for r in recordings})
    print(f"{len(recordings)} recordings, {hours:.2f} hours, {speakers} speakers in {args.out}")
    for problem in unreadable:
        print(f"skipped: {problem}", file=sys.stderr)
    return 0


def _bytes(rows: list[dict[str, Any]], root: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row with its file's content; archives are read front to back, once."""
    by_shard: dict[str | None, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_shard.setdefault(row.get("shard"), {})[row["path"]] = row
    for shard, members in by_shard.items():
        if shard is None:
            for path, row in members.items():
                yield row, (root / path).read_bytes()
            continue
        with tarfile.open(root / shard) as archive:
            for member in archive:
                if member.name in members:
                    yield members[member.name], archive.extractfile(member).read()


def _decode(
    work: tuple[dict[str, Any], bytes, int],
) -> tuple[dict[str, Any], np.ndarray, int, str | None]:
    row, data, sample_rate = work
    try:
        waveform, rate = read_audio(io.BytesIO(data))
    except AudioError as error:
        return row, np.empty(0, np.int16), 0, f"{row['path']}: {error}"
    mono = resample(waveform.mean(axis=0, keepdims=True), rate, sample_rate)[0]
    return row, np.round(mono * 32767).clip(-32768, 32767).astype(np.int16), rate, None


if __name__ == "__main__":
    sys.exit(main())
