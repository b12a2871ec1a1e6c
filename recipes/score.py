"""Score a model on a folder of speech: PESQ-wb, STOI, ESTOI a folder, bit rate, codebook use.

    python recipes/score.py DIR [DIR ...] [--model MODEL] [--json FILE] [--limit N] [--jobs N]

Every recording below each DIR is coded into a real .codes file's bytes, decoded at its own rate and
scored at 16 kHz. Means are over files; a file that PESQ cannot score is counted and named.
"""

from __future__ import annotations

import argparse
import json
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio import Codec, Codes
from simvq_audio.audio import AUDIO_SUFFIXES, read_audio
from simvq_audio.bitstream import OVERHEAD_BYTES
from simvq_audio.errors import SimvqAudioError

_codec: Codec


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--model", help="model file; the embedded one by default")
    parser.add_argument("--json", type=Path, help="write every file's scores here")
    parser.add_argument("--limit", type=int, help="score only every so many-th file, this many")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    try:
        return run(args)
    except (SimvqAudioError, OSError) as error:
        print(f"score.py: error: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    files = [
        (path, f"{folder.resolve().name}/{path.relative_to(folder)}")
        for folder in args.folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
    ]
    if args.limit:
        files = files[:: max(1, len(files) // args.limit)][: args.limit]
    if not files:
        raise SimvqAudioError(f"no audio files below {', '.join(map(str, args.folders))}")
    codec = Codec.load(args.model, device="cpu")
    # spawn: torch's threads do not survive a fork.
    with get_context("spawn").Pool(args.jobs, _start, (args.model,)) as pool:
        rows = pool.map(_score, [(str(path), name) for path, name in files], 4)
    folders = sorted({str(Path(row["file"]).parent) for row in rows})
    print(f"{codec.name} {codec.fingerprint}")
    print(f"{'folder':24} files  kbit/s  PESQ-wb   STOI  ESTOI")
    summary: dict[str, dict[str, Any]] = {}
    for folder in [*folders, "all"]:
        of = [r for r in rows if folder == "all" or str(Path(r["file"]).parent) == folder]
        mean = {
            key: float(np.mean([r[key] for r in of if r[key] is not None]))
            for key in ("kbps", "pesq_wb", "stoi", "estoi")
        }
        summary[folder] = {"files": len(of), **mean}
        print(
            f"{folder:24} {len(of):5}  {mean['kbps']:6.3f}  {mean['pesq_wb']:7.3f}  "
            f"{mean['stoi']:.3f}  {mean['estoi']:.3f}"
        )
    unscored = [r["file"] for r in rows if r["pesq_wb"] is None]
    if unscored:
        print(f"PESQ found no speech in {len(unscored)}: {', '.join(unscored)}")
    counts = sum(np.bincount(r.pop("indices"), minlength=codec.codebook_size) for r in rows)
    p = counts[counts > 0] / counts.sum()
    use = {
        "frames": int(counts.sum()),
        "utilisation": float((counts > 0).mean()),
        "perplexity": float(np.exp(-(p * np.log(p)).sum())),
    }
    print(
        f"{use['frames']} frames: {100 * use['utilisation']:.1f} % of {codec.codebook_size} codes "
        f"used, perplexity {use['perplexity']:.0f}"
    )
    if args.json:
        report = {"model": codec.fingerprint, "summary": summary, "codebook": use, "files": rows}
        args.json.write_text(json.dumps(report, indent=1))
    return 0


def _start(model: str | None) -> None:
    global _codec
    import torch

    torch.set_num_threads(1)
    _codec = Codec.load(model, device="cpu")


def _score(job: tuple[str, str]) -> dict[str, Any]:
    from simvq_audio.evaluation.metric import Metric, UnscorableError
    from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
    from simvq_audio.evaluation.trial import Trial

    def score(metric: type[Metric]) -> float | None:
        try:
            return metric().score(trial)
        except UnscorableError:
            return None

    path, name = job
    waveform, rate = read_audio(path)
    codes = _codec.encode(waveform, rate)
    data = codes.to_bytes()
    decoded = _codec.decode(Codes.from_bytes(data)).numpy()
    trial = Trial(waveform[0], decoded[0], rate)
    payload = 8 * (len(data) - OVERHEAD_BYTES)
    return {
        "file": name,
        "kbps": payload / codes.duration / 1000,
        "pesq_wb": score(PesqWb),
        "stoi": score(Stoi),
        "estoi": score(Estoi),
        "indices": codes.indices[0].tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
