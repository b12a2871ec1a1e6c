"""Write manifests for a folder or a .tar archive of audio, split by speakers.

    python data_prep/folder.py SOURCE OUT [--dev-share 0.05] [--speaker-from REGEX] [--seed 0]

OUT/train.jsonl and OUT/dev.jsonl list what can be read; no speaker is in both. The speaker is the
folder that holds a file, or what the first group of REGEX finds in the file's path below SOURCE:
``--speaker-from '([^/_]+)_[^/]*$'`` takes the file name up to its last "_". Every recording is read
to its end, which finds damage and where its spectrum ends (bandwidth_hz).

SOURCE can also be a manifest (.jsonl), whose rows are taken as they are and split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simvq_audio.cli.console import progress
from simvq_audio.errors import ConfigError
from simvq_audio.training.manifest import ManifestRow, load_manifest, summary, write_manifest
from simvq_audio.training.scan import find_candidates, scan, split_speakers
from simvq_audio.training.script import add_jobs, print_skipped, run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="folder.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder, .tar archive or .jsonl manifest")
    parser.add_argument("out", type=Path, help="folder for the manifests")
    parser.add_argument(
        "--dev-share", type=float, default=0.05, help="of the total duration (default: 0.05)"
    )
    parser.add_argument(
        "--speaker-from", metavar="REGEX", help="finds the speaker in a path (default: the folder)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    add_jobs(parser)
    return run_script(parser, _work, arguments)


def _work(args: argparse.Namespace) -> None:
    rows, unreadable = _rows(args)
    print_skipped(unreadable)
    parts = split_speakers(rows, args.dev_share, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("train", "dev"), parts):
        target = args.out / f"{name}.jsonl"
        if part:
            write_manifest(target, part)
            print(f"{target}: {summary(part)}")
        else:
            # One of an earlier call would share speakers with the training part.
            target.unlink(missing_ok=True)
            print(f"no {target.name}: {_why_none(rows, args.dev_share)}")


def _rows(args: argparse.Namespace) -> tuple[list[ManifestRow], list[str]]:
    if args.source.suffix == ".jsonl":
        if args.speaker_from is not None:
            raise ConfigError("--speaker-from is for folders and archives; a manifest has speakers")
        return load_manifest(args.source), []
    candidates = find_candidates(args.source, args.speaker_from)
    with progress("reading", len(candidates), quiet=False) as advance:
        return scan(candidates, decode=True, threads=args.jobs, advance=advance)


def _why_none(rows: list[ManifestRow], dev_share: float) -> str:
    if not dev_share:
        return "--dev-share is 0"
    speakers = len({row.speaker_label for row in rows})
    return f"{speakers} speaker alone; name the speakers with --speaker-from if there are more"


if __name__ == "__main__":
    sys.exit(main())
