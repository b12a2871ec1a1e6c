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
    for number in range(arguments.kills):
        process = start(arguments.source, killed, options)
        # Anywhere in the work of about a tenth of the shards, and a bit.
        before, aim = shards(killed), choice.randrange(0, max(2, 2 * total // arguments.kills))
        aim = min(before + aim, total - 1)
        while process.poll() is None and shards(killed) < aim:
            time.sleep(0.05)
        time.sleep(choice.uniform(0, 1.5 * elapsed / total))
        process.kill()
        process.wait()
        print(f"kill {number + 1} at {shards(killed)} shards", flush=True)
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
