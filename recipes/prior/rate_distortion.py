"""Bit rate against scores: the table and the picture of docs/bit-rate.md.

    python recipes/prior/rate_distortion.py FOLDER... WORK [--files N] [--page docs/bit-rate.md]

Codes each recording with the best codes, at each rate of --kbps and with each codebook of
--codebooks, and by Codec2 where c2enc and c2dec are installed; scores all at 16 kHz. WORK keeps a
line for each recording, so an interrupted run goes on where it stopped. Recordings are taken in a
random but fixed order, so those done so far are a fair sample; the table is of them. With --page it
is written into the page, between its two markers, and the picture beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from simvq_audio import Codec
from simvq_audio.atomic import atomic_path
from simvq_audio.audio import AUDIO_SUFFIXES, AudioReader, resample
from simvq_audio.bitstream import OVERHEAD_BYTES, Codes
from simvq_audio.errors import ConfigError, needs_extra
from simvq_audio.evaluation.alignment import align, estimate_delay
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.registry import find_metrics
from simvq_audio.evaluation.trial import Trial
from simvq_audio.training.script import positive, run_script

RATE = 16_000
METRICS = ("distillmos", "speaker_similarity", "pesq_wb", "stoi")
# Recordings from which the delay of Codec2 is estimated.
_FOR_DELAY = 10
_CODEC2 = {"Codec2 1300": ("1300", 1.3), "Codec2 700C": ("700C", 0.7)}
_BEGIN, _END = "<!-- written by rate_distortion.py -->", "<!-- end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("rate_distortion.py", description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of speech")
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for results")
    parser.add_argument("--kbps", default="0.6,0.5,0.45,0.4,0.35")
    parser.add_argument("--codebooks", default="4096,2048,1024,512,256")
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--model", help="a model; the embedded one by default")
    parser.add_argument("--files", type=positive, help="how many recordings; all by default")
    parser.add_argument("--page", type=Path, help="page to write the table into")
    return run_script(parser, measure, arguments)


def measure(args: argparse.Namespace) -> None:
    codec = Codec.load(args.model, device="cpu")
    systems = _Systems(codec, args.kbps.split(","), args.codebooks.split(","))
    metrics = find_metrics(args.metrics.split(","))
    scorers = [metric() for metric in metrics]
    names = {
        path: f"{folder.name}/{path.relative_to(folder).as_posix()}"
        for folder in args.folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
    }
    paths = sorted(names, key=lambda path: names[path])
    random.Random(0).shuffle(paths)
    args.work.mkdir(parents=True, exist_ok=True)
    # Results of another model or set of rows are not those asked for.
    done = _Done(
        args.work / f"{codec.model_id}.jsonl", [*systems.names], list(args.metrics.split(","))
    )
    for path in paths[: args.files]:
        name = names[path]
        if name in done.files:
            continue
        systems.learn_delays(paths)
        rows = {}
        for system, bits, reference, decoded in systems.coded(path):
            trial = Trial(reference, decoded, RATE)
            scores = {each.name: _score(each, trial) for each in scorers}
            seconds = len(reference) / RATE
            rows[system] = {"kbps": bits / seconds / 1000, **scores}
        done.add(name, rows)
        print(f"{len(done.files)} recordings done", flush=True)
    means = done.means()
    table = _table(means, metrics, len(done.files), codec)
    (args.work / "table.md").write_text(table)
    _draw(means, metrics, args.work / "bit-rate.png")
    if args.page:
        _put_into(args.page, table)
        shutil.copyfile(args.work / "bit-rate.png", args.page.with_suffix(".png"))
    print(table)


class _Systems:
    """What is compared: this codec at several rates, and Codec2."""

    def __init__(self, codec: Codec, rates: list[str], sizes: list[str]) -> None:
        self._codec = codec
        self._rates = {f"`--kbps {rate}`": float(rate) for rate in rates if rate}
        self._books = {
            f"`--codebook {size}`": codec.with_codebook(int(size)) for size in sizes if size
        }
        has_codec2 = all(shutil.which(program) for program in ("c2enc", "c2dec"))
        self._codec2 = _CODEC2 if has_codec2 else {}
        self._delays: dict[str, int] = {}
        self.names = ("best codes, entropy-coded", *self._rates, *self._books, *self._codec2)

    def learn_delays(self, paths: Sequence[Path]) -> None:
        """Estimate the delays of other codecs from some recordings, once."""
        for name, (mode, _) in self._codec2.items():
            if name not in self._delays:
                originals = [_read(path) for path in paths[:_FOR_DELAY]]
                pairs = [(audio, _by_codec2(audio, mode)) for audio in originals]
                self._delays[name] = estimate_delay(pairs, RATE).samples

    def coded(self, path: Path) -> Iterator[tuple[str, float, np.ndarray, np.ndarray]]:
        """(system, bits without header, original, decoded), both (samples,) at 16 kHz.

        Leaves out the rates that a recording cannot be coded at.
        """
        with AudioReader(path) as reader:
            rate = reader.sample_rate
            samples = np.concatenate(list(reader.blocks()))[:, :1].T
        reference = resample(samples, rate, RATE)[0]
        for name in (self.names[0], *self._rates):
            try:
                codes = self._codec.encode(samples, rate, kbps=self._rates.get(name))
            except ConfigError:
                continue
            yield name, _bits(codes), reference, self._decoded(codes, len(reference))
        for name, small in self._books.items():
            codes = small.encode(samples, rate)
            yield name, _bits(codes), reference, self._decoded(codes, len(reference))
        for name, (mode, kbps) in self._codec2.items():
            decoded = _by_codec2(reference, mode)
            pair = align(reference, decoded, self._delays[name], RATE)
            yield name, 1000 * kbps * len(pair[0]) / RATE, *pair

    def _decoded(self, codes: Codes, samples: int) -> np.ndarray:
        native = self._codec.decode(codes, native_rate=True).numpy()
        decoded = resample(native, self._codec.sample_rate, RATE)[0][:samples]
        return np.pad(decoded, (0, samples - len(decoded)))


class _Done:
    """The results so far, a line of JSON for each recording."""

    def __init__(self, path: Path, systems: list[str], metrics: list[str]) -> None:
        self._path = path
        self.files: dict[str, dict[str, dict[str, float | None]]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    found = json.loads(line)
                except ValueError:
                    continue  # a line that was being written when the run was stopped
                if found["systems"] == systems and found["metrics"] == metrics:
                    self.files[found["file"]] = found["rows"]
        self._settings = {"systems": systems, "metrics": metrics}

    def add(self, name: str, rows: dict[str, Any]) -> None:
        """Note what a recording scored."""
        self.files[name] = rows
        with self._path.open("a") as out:
            print(json.dumps({"file": name, **self._settings, "rows": rows}), file=out)

    def means(self) -> dict[str, dict[str, float]]:
        """Means over recordings, and in "files" how many could be coded."""
        found = {}
        for system in self._settings["systems"]:
            rows = [rows[system] for rows in self.files.values() if system in rows]
            if rows:
                values = {
                    key: [row[key] for row in rows if row[key] is not None] for key in rows[0]
                }
                found[system] = {key: mean(some) for key, some in values.items() if some}
                found[system]["files"] = len(rows)
        return found


def _score(metric: Metric, trial: Trial) -> float | None:
    try:
        return metric.score(trial)
    except UnscorableError:
        return None


def _bits(codes: Codes) -> int:
    return 8 * (len(codes.to_bytes()) - OVERHEAD_BYTES)


def _read(path: Path) -> np.ndarray:
    with AudioReader(path) as reader:
        samples = np.concatenate(list(reader.blocks()))[:, :1].T
        return resample(samples, reader.sample_rate, RATE)[0]


def _by_codec2(audio: np.ndarray, mode: str) -> np.ndarray:
    """(samples,) at 16 kHz, coded and decoded at 8 kHz."""
    narrow = np.clip(resample(audio[None], RATE, 8000)[0], -1, 1)
    data = (narrow * 32767).astype("<i2").tobytes()
    for program in ("c2enc", "c2dec"):
        ended = subprocess.run(
            [program, mode, "-", "-"], input=data, capture_output=True, check=True
        )
        data = ended.stdout
    decoded = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return resample(decoded[None], 8000, RATE)[0]


def _table(
    means: dict[str, dict[str, float]], metrics: list[type[Metric]], files: int, codec: Codec
) -> str:
    head = ["", "kbit/s", "bits per frame", *(metric.title for metric in metrics)]
    lines = [
        f"{files} recordings, model {codec.model_id}:",
        "",
        _row(head),
        "|---" * len(head) + "|",
    ]
    for system, row in means.items():
        ours = system not in _CODEC2
        cells = [system, f"{row['kbps']:.3f}" if ours else f"{row['kbps']:.1f}"]
        cells.append(f"{1000 * row['kbps'] / codec.frame_rate:.2f}" if ours else "")
        cells += [f"{row[m.name]:.{m.digits}f}" if m.name in row else "" for m in metrics]
        if row["files"] < files:
            cells[0] += f" ({row['files']:.0f} recordings)"
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _draw(means: dict[str, dict[str, float]], metrics: list[type[Metric]], target: Path) -> None:
    with needs_extra("eval"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 2.6 * -(-len(metrics) // 2)), layout="constrained")
    series = {
        "entropy-coded, --kbps": lambda name: "kbps" in name or "best" in name,
        "fixed width, --codebook": lambda name: "codebook" in name,
        "Codec2": lambda name: name in _CODEC2,
    }
    axes = figure.subplots(-(-len(metrics) // 2), 2, squeeze=False).flat
    for axis, metric in zip(axes, metrics):
        for label, belongs in series.items():
            rows = [row for name, row in means.items() if belongs(name) and metric.name in row]
            points = sorted((row["kbps"], row[metric.name]) for row in rows)
            if points:
                style = "s" if label == "Codec2" else "o-"
                axis.plot(*zip(*points), style, label=label)
        axis.set(xlabel="kbit/s", ylabel=metric.title)
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(target, dpi=110)


def _put_into(page: Path, table: str) -> None:
    text = page.read_text()
    if _BEGIN not in text or _END not in text.split(_BEGIN, 1)[1]:
        raise ConfigError(f"{page} lacks the lines '{_BEGIN}' and '{_END}'")
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{_BEGIN}\n{table}{_END}{after}")


if __name__ == "__main__":
    sys.exit(main())
