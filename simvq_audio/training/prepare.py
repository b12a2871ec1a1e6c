"""From recordings to manifests and packed folders; the functions behind ``simvq-audio data``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeAlias

from simvq_audio.errors import AudioError, ConfigError, needs_extra
from simvq_audio.training.download import download, unpack_folder
from simvq_audio.training.manifest import ManifestRow, load_manifest, summary, write_manifest
from simvq_audio.training.packed import pack
from simvq_audio.training.scan import Candidate, find_candidates, scan, split_speakers

# (label, total) -> context manager of a function that is called with each amount done.
Progress: TypeAlias = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]

LIBRITTS_SUBSETS = (
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
)
_LIBRITTS = "LibriTTS"


def no_progress(label: str, total: float) -> AbstractContextManager[Callable[[float], None]]:
    """Shows nothing."""
    return nullcontext(lambda amount: None)


def prepare_folder(
    source: Path,
    out: Path,
    *,
    dev_share: float = 0.05,
    speaker_from: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Write manifests for a folder or a .tar archive of audio, split by speakers.

    ``out/train.jsonl`` and ``out/dev.jsonl`` list what can be read; no speaker is in both. Every
    recording is read whole, to find damage and the end of its spectrum.

    Args:
        source: folder, .tar archive, or a manifest (.jsonl), whose rows are split as they are.
        dev_share: share of the total duration for the dev part.
        speaker_from: regular expression whose first group, in a file's path below ``source``, is
            the speaker. By default the speaker is the folder that holds the file.
        seed: of the split.
        jobs: recordings read at a time.
        say: called with a line for each file written.

    Returns:
        one line for each recording that cannot be read.

    Raises:
        SimvqAudioError: there is nothing to read, or an option is invalid.
        OSError: ``out`` cannot be written.
    """
    if source.suffix == ".jsonl":
        if speaker_from is not None:
            raise ConfigError("--speaker-from is for folders and archives; a manifest has speakers")
        rows = load_manifest(source)
        unreadable: list[str] = []
    else:
        candidates = find_candidates(source, speaker_from)
        with progress("reading", len(candidates)) as advance:
            rows, unreadable = scan(candidates, decode=True, threads=jobs, advance=advance)
    parts = split_speakers(rows, dev_share, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("train", "dev"), parts):
        target = out / f"{name}.jsonl"
        if part:
            write_manifest(target, part)
            say(f"{target}: {summary(part)}")
        else:
            # One of an earlier call could share speakers with the training part.
            target.unlink(missing_ok=True)
            say(f"no {target.name}: {_why_none(rows, dev_share)}")
    return unreadable


def _why_none(rows: list[ManifestRow], dev_share: float) -> str:
    if not dev_share:
        return "--dev-share is 0"
    speakers = len({row.speaker_label for row in rows})
    return f"{speakers} speaker alone; name the speakers with --speaker-from if there are more"


def prepare_libritts(
    out: Path,
    *,
    root: Path | None = None,
    subsets: Sequence[str] | None = None,
    jobs: int = 1,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Write manifests for LibriTTS, downloading it first if need be.

    ``out/SUBSET.jsonl`` is written for each subset, and ``out/train.jsonl`` for all training
    subsets together. Downloads use the addresses and checksums of ``torchaudio.datasets.LIBRITTS``;
    interrupted ones are resumed by the next call. Archives stay in ``out``.

    Args:
        root: an existing tree, ``LibriTTS/SUBSET/SPEAKER/CHAPTER/*.wav`` or that ``LibriTTS``,
            instead of downloads.
        subsets: default: all seven, or with ``root`` those found.
        jobs: recordings read at a time.
        say: called with a line for each file written.

    Returns:
        one line for each recording that cannot be read.

    Raises:
        SimvqAudioError: a download fails, or a subset is unknown or missing.
        OSError: ``out`` cannot be written.
    """
    for name in subsets or ():
        if name not in LIBRITTS_SUBSETS:
            raise ConfigError(f"LibriTTS has no {name}; it has {', '.join(LIBRITTS_SUBSETS)}")
    out.mkdir(parents=True, exist_ok=True)
    if root is None:
        folders = {
            name: _downloaded(name, out, progress, say) for name in subsets or LIBRITTS_SUBSETS
        }
    else:
        folders = _existing(root, subsets)
    training: list[ManifestRow] = []
    skipped: list[str] = []
    for subset, folder in folders.items():
        rows, unreadable = _scan_libritts(subset, folder, jobs, progress)
        skipped += unreadable
        write_manifest(out / f"{subset}.jsonl", rows)
        say(f"{out / subset}.jsonl: {summary(rows)}")
        if subset.startswith("train-"):
            training += rows
    if training:
        write_manifest(out / "train.jsonl", training)
        say(f"{out / 'train.jsonl'}: {summary(training)}")
    return skipped


def libritts_archives() -> dict[str, tuple[str, str]]:
    """URL and SHA-256 of each subset's archive, as torchaudio has them.

    Raises:
        MissingExtraError: torchaudio is not installed.
    """
    with needs_extra("train"):
        from torchaudio.datasets import libritts
    return {
        url.rsplit("/", 1)[1].removesuffix(".tar.gz"): (url, sha256)
        for url, sha256 in libritts._CHECKSUMS.items()
    }


def _downloaded(subset: str, out: Path, progress: Progress, say: Callable[[str], None]) -> Path:
    folder = out / _LIBRITTS / subset
    if folder.is_dir():
        return folder
    url, sha256 = libritts_archives()[subset]
    archive = out / f"{subset}.tar.gz"
    with progress(f"{subset} (share)", 1) as advance:
        shown = 0.0

        def report(done: int, total: int | None) -> None:
            nonlocal shown
            if total:
                advance(done / total - shown)
                shown = done / total

        download(url, archive, sha256, report)
    say(f"unpacking {archive}")
    unpack_folder(archive, f"{_LIBRITTS}/{subset}", folder)
    return folder


def _existing(root: Path, subsets: Sequence[str] | None) -> dict[str, Path]:
    tree = root / _LIBRITTS if (root / _LIBRITTS).is_dir() else root
    wanted = subsets or LIBRITTS_SUBSETS
    folders = {name: tree / name for name in wanted if (tree / name).is_dir()}
    missing = [name for name in subsets or () if name not in folders]
    if missing or not folders:
        raise AudioError(f"{tree} holds no {missing[0] if missing else 'LibriTTS subset'}")
    return folders


def _scan_libritts(
    subset: str, folder: Path, jobs: int, progress: Progress
) -> tuple[list[ManifestRow], list[str]]:
    candidates = [
        Candidate(str(path.absolute()), speaker=path.parent.parent.name, subset=subset)
        for path in sorted(folder.glob("*/*/*.wav"))
    ]
    if not candidates:
        raise AudioError(f"{folder} holds no recordings named SPEAKER/CHAPTER/*.wav")
    with progress(subset, len(candidates)) as advance:
        return scan(candidates, decode=False, threads=jobs, advance=advance)


def pack_manifest(
    manifest: Path,
    out: Path,
    *,
    sample_rate: int = 24_000,
    jobs: int = 1,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Pack the recordings of a manifest for fast training: mono, 2 bytes per sample.

    Args:
        out: new folder, which appears when complete.
        sample_rate: of the packed speech, in Hz.
        jobs: recordings decoded at a time.
        say: called with a line about it.

    Returns:
        one line for each recording that cannot be read.

    Raises:
        SimvqAudioError: the manifest cannot be read, or ``out`` exists.
        OSError: ``out`` cannot be written.
    """
    rows = load_manifest(manifest)
    with progress("packing", len(rows)) as advance:
        packed, unreadable = pack(
            rows, out, root=manifest.parent, sample_rate=sample_rate, threads=jobs, advance=advance
        )
    say(f"{out}: {summary(packed)}, packed at {sample_rate} Hz")
    return unreadable
