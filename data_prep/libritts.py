"""Write manifests for LibriTTS, downloading it first if need be.

    python data_prep/libritts.py OUT [--subsets train-clean-100 ...]      downloads
    python data_prep/libritts.py OUT --root FOLDER [--subsets ...]        takes what is there

OUT/SUBSET.jsonl is written for each subset, and OUT/train.jsonl for all training subsets together.
Downloads come from where torchaudio.datasets.LIBRITTS gets them, with its checksums; an interrupted
one goes on when the command is run again. The archives stay in OUT and can be removed. FOLDER holds
``LibriTTS/SUBSET/SPEAKER/CHAPTER/*.wav``, or is that ``LibriTTS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simvq_audio.cli.console import progress
from simvq_audio.errors import AudioError, MissingExtraError
from simvq_audio.training.download import download, unpack_folder
from simvq_audio.training.manifest import ManifestRow, summary, write_manifest
from simvq_audio.training.scan import Candidate, scan
from simvq_audio.training.script import add_jobs, print_skipped, run_script

SUBSETS = (
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
)
_FOLDER = "LibriTTS"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="libritts.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for downloads and manifests")
    parser.add_argument("--root", type=Path, help="an existing tree, instead of downloads")
    parser.add_argument(
        "--subsets",
        nargs="+",
        choices=SUBSETS,
        help="default: all seven, or with --root those that are there",
    )
    add_jobs(parser)
    return run_script(parser, _work, arguments)


def _work(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    if args.root is None:
        folders = {name: _downloaded(name, args.out) for name in args.subsets or SUBSETS}
    else:
        folders = _existing(args.root, args.subsets)
    training: list[ManifestRow] = []
    for subset, folder in folders.items():
        rows, unreadable = _scan(subset, folder, args.jobs)
        print_skipped(unreadable)
        write_manifest(args.out / f"{subset}.jsonl", rows)
        print(f"{args.out / subset}.jsonl: {summary(rows)}")
        if subset.startswith("train-"):
            training += rows
    if training:
        write_manifest(args.out / "train.jsonl", training)
        print(f"{args.out / 'train.jsonl'}: {summary(training)}")


def archives() -> dict[str, tuple[str, str]]:
    """URL and SHA-256 of each subset's archive, as torchaudio has them.

    Raises:
        MissingExtraError: torchaudio is not installed.
    """
    try:
        from torchaudio.datasets import libritts
    except ImportError as error:
        raise MissingExtraError(
            "downloading needs torchaudio: pip install 'simvq-audio[train]'"
        ) from error
    return {
        url.rsplit("/", 1)[1].removesuffix(".tar.gz"): (url, sha256)
        for url, sha256 in libritts._CHECKSUMS.items()
    }


def _downloaded(subset: str, out: Path) -> Path:
    folder = out / _FOLDER / subset
    if folder.is_dir():
        return folder
    url, sha256 = archives()[subset]
    archive = out / f"{subset}.tar.gz"
    with progress(f"{subset} (share)", 1, quiet=False) as advance:
        shown = 0.0

        def report(done: int, total: int | None) -> None:
            nonlocal shown
            if total:
                advance(done / total - shown)
                shown = done / total

        download(url, archive, sha256, report)
    print(f"unpacking {archive}")
    unpack_folder(archive, f"{_FOLDER}/{subset}", folder)
    return folder


def _existing(root: Path, subsets: Sequence[str] | None) -> dict[str, Path]:
    tree = root / _FOLDER if (root / _FOLDER).is_dir() else root
    folders = {name: tree / name for name in subsets or SUBSETS if (tree / name).is_dir()}
    missing = [name for name in subsets or () if name not in folders]
    if missing or not folders:
        raise AudioError(f"{tree} holds no {missing[0] if missing else 'LibriTTS subset'}")
    return folders


def _scan(subset: str, folder: Path, jobs: int) -> tuple[list[ManifestRow], list[str]]:
    candidates = [
        Candidate(str(path.absolute()), speaker=path.parent.parent.name, subset=subset)
        for path in sorted(folder.glob("*/*/*.wav"))
    ]
    if not candidates:
        raise AudioError(f"{folder} holds no recordings named SPEAKER/CHAPTER/*.wav")
    with progress(subset, len(candidates), quiet=False) as advance:
        return scan(candidates, decode=False, threads=jobs, advance=advance)


if __name__ == "__main__":
    sys.exit(main())
