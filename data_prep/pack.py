"""Pack the recordings of a manifest for fast training.

    python data_prep/pack.py MANIFEST OUT [--sample-rate 24000] [--jobs N]

MANIFEST has one JSON object a line: path, duration, sample_rate, speaker; and, where known, source,
bandwidth_hz, and shard, the tar archive that holds ``path``. data_prep/libritts.py and
data_prep/folder.py write such files. Everything soundfile reads is taken, mixed down to one channel
and resampled. OUT, a folder, appears when all is done; it takes 2 bytes a sample.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simvq_audio.cli.console import progress
from simvq_audio.training.manifest import load_manifest, summary
from simvq_audio.training.packing import pack
from simvq_audio.training.script import add_jobs, positive, print_skipped, run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pack.py", description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--sample-rate", type=positive, default=24_000, help="Hz (default: 24000)")
    add_jobs(parser)
    return run_script(parser, _work, arguments)


def _work(args: argparse.Namespace) -> None:
    rows = load_manifest(args.manifest)
    with progress("packing", len(rows), quiet=False) as advance:
        packed, unreadable = pack(
            rows,
            args.out,
            root=args.manifest.parent,
            sample_rate=args.sample_rate,
            threads=args.jobs,
            advance=advance,
        )
    print_skipped(unreadable)
    print(f"{args.out}: {summary(packed)}, packed at {args.sample_rate} Hz")


if __name__ == "__main__":
    sys.exit(main())
