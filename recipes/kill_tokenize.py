"""Tokenise a corpus in one go, and again killed (SIGKILL) at random moments; compare row by row.

    python recipes/kill_tokenize.py recordings/ work/ --kills 10

Needs the extra ``corpora``. Prints what was compared, and exits with 1 upon any difference.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds


def start(source: str, out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Begin, or go on."""
    command = [sys.executable, "-m", "simvq_audio", "tokenize", source, str(out), *options]
    return subprocess.Popen(command)


def shards(out: Path) -> int:
    """How many there are by now."""
    return len(list(out.glob("*.parquet")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jitter", type=float, default=2.0, help="seconds from shard to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default="--shard-size 200", help="of simvq-audio tokenize")
    arguments = parser.parse_args()
    options = arguments.options.split()
    whole, killed = arguments.work / "whole", arguments.work / "killed"
    begin = time.perf_counter()
    if start(arguments.source, whole, options).wait():
        raise SystemExit("the run in one go failed")
    elapsed = time.perf_counter() - begin
    total = shards(whole)
    print(f"in one go: {elapsed:.0f} s, {total} shards", flush=True)

    choice = random.Random(arguments.seed)
    begin = time.perf_counter()
    aims = sorted(choice.sample(range(total - 1), arguments.kills))
    for number, aim in enumerate(aims, 1):
        process = start(arguments.source, killed, options)
        while process.poll() is None and shards(killed) < aim:
            time.sleep(0.05)
        time.sleep(choice.uniform(0, arguments.jitter))
        process.kill()
        if process.wait() == 0:
            raise SystemExit("it was done before it could be killed; give a smaller --jitter")
        print(f"kill {number} at {shards(killed)} shards", flush=True)
    if start(arguments.source, killed, options).wait():
        raise SystemExit("the last run failed")
    print(f"killed: {time.perf_counter() - begin:.0f} s, {shards(killed)} shards", flush=True)

    first, second = (
        ds.dataset(str(folder), format="parquet").to_table().sort_by("id")
        for folder in (whole, killed)
    )
    ids = first["id"].to_pylist()
    if len(ids) != len(set(ids)) or not first.equals(second):
        raise SystemExit(f"they differ: {first.num_rows} and {second.num_rows} rows")
    frames = sum(len(codes) for codes in first["codes"])
    print(f"{first.num_rows} rows, {frames} codes: equal in every row")


if __name__ == "__main__":
    main()
