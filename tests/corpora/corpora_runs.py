"""Short recordings, and what came of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

RATES = (16_000, 24_000, 8_000)


def make_recordings(folder: Path, count: int, channels: int = 1) -> list[Path]:
    """Recordings of a tenth to half a second, at several rates."""
    random = np.random.default_rng(count)
    paths = []
    for number in range(count):
        path = folder / f"s{number % 3}" / f"{number:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = RATES[number % len(RATES)]
        samples = 0.2 * random.standard_normal((int(rate * random.uniform(0.1, 0.5)), channels))
        soundfile.write(path, samples, rate)
        paths.append(path)
    return paths


def rows_of(out: Path) -> dict[str, dict]:
    """All rows of the Parquet shards by id; an id twice is an error."""
    import pyarrow.parquet as pq

    found: dict[str, dict] = {}
    for path in sorted(out.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["id"] not in found
            found[row["id"]] = row
    return found


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """``simvq-audio tokenize`` in another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "simvq_audio", "tokenize", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
