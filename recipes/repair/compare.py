"""Compare ways to bridge lost frames, over recordings.

    python recipes/repair/compare.py score FOLDER OUT.jsonl --manifest dev/manifest.jsonl \
        --half report --every 5 --methods none,repaired,repeat,linear,silence,opus
    python recipes/repair/compare.py table OUT.jsonl

``score`` goes on where it was stopped. Frames are lost as ``simulated_loss`` has it; Opus loses
packets of 20 ms, as many at once as take about as long. Scores are made at 16 kHz: STOI and PESQ-wb
of all losses; DistillMOS and speaker similarity of single frames, and of 20 % in bursts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import opus
import soundfile
import torch
from judges import judges

from simvq_audio.audio import resample
from simvq_audio.bitstream import Codes
from simvq_audio.codec import Codec
from simvq_audio.codec.repair import LatentDecoder, Repairer, simulated_loss

RATE = 16_000
SHARES, BURSTS = (0.05, 0.1, 0.2, 0.3), (1, 3, 6)
# Opus frames of 20 ms that take about as long as a burst of frames of 13.3 ms.
OPUS_BURSTS = {1: 1, 3: 2, 6: 4}
OPUS_BITRATE = 6000


def chosen(folder: Path, manifest: Path, half: str, every: int) -> list[Path]:
    """Recordings of one half of the speakers, as ``evaluate --half`` has it, every n-th of them."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    found = []
    for row in rows:
        if not row.get("speaker"):
            continue
        odd = int(hashlib.sha256(row["speaker"].encode()).hexdigest()[-1], 16) % 2
        if half == ("choose", "report")[odd]:
            found.append(folder / row["path"])
    return found[::every]


def interpolated(latents: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Latents (frames, dim) on straight lines between the frames that are there."""
    known = np.flatnonzero(~lost)
    if not len(known):
        return np.zeros_like(latents)
    return np.stack(
        [np.interp(np.arange(len(lost)), known, values) for values in latents[known].T], axis=1
    ).astype(np.float32)


class Methods:
    """Each way, by its name: codes of one channel and what is lost -> latents (frames, dim)."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.book = codec.codebook()
        self._repairer: Repairer | None = None
        quiet = codec.encode(np.zeros(codec.sample_rate, np.float32), codec.sample_rate)
        self._silence = self.book[quiet.indices[0, quiet.num_frames // 2]]
        self.all: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
            "none": lambda codes, lost: self.book[codes],
            "repaired": self.expected,
            "codes": self.probable,
            "nearest": self.nearest,
            "repeat": self.repeated,
            "linear": lambda codes, lost: interpolated(self.book[codes], lost),
            "silence": self.silent,
        }

    @property
    def repairer(self) -> Repairer:
        """Made when it is first needed, since other ways do without."""
        if self._repairer is None:
            self._repairer = Repairer(self.codec, self.codec.codes_id)
        return self._repairer

    def expected(self, codes: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """What ``Codec.decode`` does with ``lost``."""
        return self.repairer.latents(codes[None], lost[None])[0].T

    def probable(self, codes: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """What ``Codec.repair`` gives."""
        codes = codes.copy()
        codes[lost] = self.repairer.fill(codes[None], lost[None]).codes
        return self.book[codes]

    def nearest(self, codes: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """The codes nearest to the expected vectors."""
        latents = self.expected(codes, lost)
        distances = (self.book**2).sum(1) - 2 * latents[lost] @ self.book.T
        latents[lost] = self.book[distances.argmin(1)]
        return latents

    def repeated(self, codes: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """The last code that arrived; before the first, the first."""
        known = np.flatnonzero(~lost)
        before = np.searchsorted(known, np.arange(len(codes)), "right") - 1
        return self.book[codes[known[before.clip(0)]]] if len(known) else self.book[codes * 0]

    def silent(self, codes: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """The code of digital silence."""
        latents = self.book[codes]
        latents[lost] = self._silence
        return latents

    def decode(self, latents: np.ndarray, codes: Codes) -> np.ndarray:
        """(frames, dim) -> (samples,) at 16 kHz."""
        decoder = LatentDecoder(self.codec, RATE, 1, wait=True)
        parts = [decoder.push(np.ascontiguousarray(latents.T)[None]), decoder.finish()]
        return np.concatenate(parts, axis=1)[0]


def score(
    folder: Path, out: Path, manifest: Path, half: str, every: int, methods: list[str], brief: bool
) -> None:
    """Append a row for each file, loss and way that has none."""
    torch.set_num_threads(1)
    done = set()
    if out.exists():
        for line in out.read_text().splitlines():
            row = json.loads(line)
            done.add((row["file"], row["method"], row["share"], row["burst"]))
    codec = Codec.load(device="cpu")
    ways, fast, slow = (
        Methods(codec),
        judges(("stoi", "pesq_wb")),
        judges(("distillmos", "speaker")),
    )
    library = opus.library()
    for path in chosen(folder, manifest, half, every):
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wide = resample(audio[:, :1].T, rate, RATE)[0]
        codes: Codes | None = None
        for burst in BURSTS:
            for share in SHARES:
                for method in methods:
                    clean = method in ("none", "opus-none")
                    if clean and (burst, share) != (1, SHARES[0]):
                        continue
                    if brief and share != 0.2:
                        continue
                    loss = (0.0, 0) if clean else (share, burst)
                    key = (str(path.relative_to(folder)), method, *loss)
                    if key in done:
                        continue
                    seed = int(hashlib.sha256(key[0].encode()).hexdigest()[:8], 16)
                    if method.startswith("opus"):
                        assert library is not None, "libopus is not installed"
                        frames = len(wide) // opus.FRAME + 8
                        lost = simulated_loss(frames, loss[0], OPUS_BURSTS[burst], seed)
                        decoded, _ = opus.code(library, wide, lost, OPUS_BITRATE)
                    else:
                        if codes is None:
                            codes = codec.encode(audio[:, 0], rate)
                        lost = simulated_loss(codes.num_frames, share, burst, seed)
                        decoded = ways.decode(ways.all[method](codes.indices[0], lost), codes)
                    decoded = np.pad(decoded, (0, max(0, len(wide) - len(decoded))))[: len(wide)]
                    row = dict(zip(("file", "method", "share", "burst"), key))
                    used = fast | slow if burst == 1 or share == 0.2 else fast
                    row |= {name: judge(wide, decoded) for name, judge in used.items()}
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def table(out: Path) -> None:
    """Print means over the files that every way has been scored on."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    groups: dict[tuple, dict[str, dict]] = defaultdict(dict)
    for row in rows:
        groups[row["burst"], row["share"], row["method"]][row["file"]] = row
    files = set.intersection(*(set(group) for group in groups.values()))
    print(f"{len(files)} recordings\n")
    print("| frames in a row | lost | way | STOI | PESQ-wb | DistillMOS | speaker |")
    print("|---|---|---|---|---|---|---|")
    for (burst, share, method), group in sorted(groups.items()):
        values = []
        for name, digits in (("stoi", 3), ("pesq_wb", 2), ("distillmos", 2), ("speaker", 3)):
            found = [group[f][name] for f in files if name in group[f]]
            values.append(f"{mean(found):.{digits}f}" if found else "")
        print(f"| {burst or ''} | {100 * share:.0f} % | {method} | {' | '.join(values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score")
    for name in ("folder", "out"):
        scoring.add_argument(name, type=Path)
    scoring.add_argument("--manifest", type=Path, required=True)
    scoring.add_argument("--half", choices=("choose", "report"), default="report")
    scoring.add_argument("--every", type=int, default=1, help="use every n-th recording")
    scoring.add_argument(
        "--methods", default="none,repaired,repeat,linear,silence", type=lambda s: s.split(",")
    )
    scoring.add_argument("--brief", action="store_true", help="20 % loss only")
    commands.add_parser("table").add_argument("out", type=Path)
    arguments = vars(parser.parse_args())
    {"score": score, "table": table}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
