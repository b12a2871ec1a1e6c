"""Write docs/reference-scores.md: the embedded model beside other codecs on the same recordings.

    python recipes/reference_scores.py DEV PEERS.json [--model MODEL] [--work DIR] [--out PAGE.md]

DEV holds the recordings; PEERS.json holds, for each system, its bits per second and what it scored
on every recording ({"systems": {NAME: {"bits_per_second": …, "files": {FOLDER__NAME: {"pesq": …,
"stoi": …, "estoi": …}}}}}). The folders that PEERS.json names must hold the recordings that
it names and no others; that is checked before anything is coded. An interrupted run goes on from
--work, which afterwards holds the full report with players.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from simvq_audio import Codec
from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.evaluate import evaluate_codec
from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.protocol import DEFAULT
from simvq_audio.evaluation.recordings import find_recordings
from simvq_audio.evaluation.registry import default_metric_names, find_metrics
from simvq_audio.evaluation.report.files import write_json
from simvq_audio.evaluation.report.page import write_page
from simvq_audio.evaluation.results import ALL, FileResult, Report, SystemResult, summarise
from simvq_audio.evaluation.runner import EvaluationOptions
from simvq_audio.evaluation.statistics import Mean, paired_test
from simvq_audio.training.script import positive, run_script

# What PEERS.json calls the metrics that it shares with us.
_SHARED = {"pesq": "pesq_wb", "stoi": "stoi", "estoi": "estoi"}
_TITLES = {
    "codec2_1300": "Codec2 1300",
    "codec2_3200": "Codec2 3200",
    "opus_6k_20ms": 'Opus 1.3.1 "6 k"',
    "lyra2_3200": "Lyra v2 3.2 k",
    "lyra2_6000": "Lyra v2 6 k",
}
_PAPERS = """\
| as reported, LibriTTS test-clean / test-other | kbit/s | PESQ-wb | STOI | V/UV F1 | UTMOS |
|---|---|---|---|---|---|
| EnCodec | 3.0 | 2.05 / 2.05 | .90 / .88 | .92 / .89 | 2.31 / 2.09 |
| Vocos | 3.0 | 2.40 / 2.19 | .92 / .90 | .94 / .91 | 3.53 / 3.06 |
| SpeechTokenizer | 3.0 | 1.93 / 1.74 | .88 / .84 | .93 / .89 | 3.56 / 3.02 |
| WavTokenizer, K = 4096 | 0.9 | 2.37 / 2.26 | .914 / .891 | .938 / .917 | 4.05 / 3.43 |
| SimVQ, K = 4096 | 0.9 | 2.33 / 2.08 | .91 / .88 | .94 / .91 | 4.00 / 3.51 |
| SimVQ, K = 8192 | 0.975 | 2.42 / 2.15 | .92 / .88 | .94 / .92 | 4.03 / 3.52 |
| SimVQ, K = 65 536 | 1.2 | 2.54 / 2.26 | .93 / .90 | .94 / .92 | 4.03 / 3.52 |
| SimVQ, K = 262 144 | 1.35 | 2.61 / 2.31 | .93 / .90 | .95 / .93 | 4.03 / 3.53 |
"""
_DIFFERENCES = """\
These are not the same measurement as the tables above:

- The papers score LibriTTS test-clean and test-other whole (24 kHz, some 10 000 utterances);
  here it is {files} recordings, most at 16 kHz, and six of LibriTTS' test sets in `libritts-24k`.
- They clip reconstructions to 0.99 and round them to 16 bits, and resample with torchaudio; here
  soxr resamples. Their STOI is given 24 kHz, ours 16 kHz.
- They average PESQ's failures in as -1; here failures are counted and named ({failures} here).
- Their models have about 72 million parameters and were trained on 555 hours; this one saw 13.

`simvq-audio evaluate DIR --protocol simvq --metrics pesq_wb,stoi,vuv_f1_crepe` prepares signals
as they do. The rows are from the tables of SimVQ's repository (arXiv 2411.02038), but for
WavTokenizer's, which is from its own paper (arXiv 2408.16532).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("reference_scores.py", description=__doc__.splitlines()[0])
    parser.add_argument("dev", type=Path, metavar="DEV", help="folder of recordings")
    parser.add_argument("peers", type=Path, metavar="PEERS.json", help="scores of other codecs")
    parser.add_argument("--model", help="a model; the embedded one by default")
    parser.add_argument("--work", type=Path, default=Path("reports/reference"))
    parser.add_argument("--out", type=Path, default=Path("docs/reference-scores.md"))
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1)
    return run_script(parser, write_reference_scores, arguments)


def write_reference_scores(args: argparse.Namespace) -> None:
    peers = _read_peers(args.peers)
    known = set.intersection(*({file.name for file in peer.files} for peer in peers))
    settings = EvaluationOptions(
        metrics=tuple(find_metrics(default_metric_names())),
        protocol=DEFAULT,
        jobs=args.jobs,
        out=args.work,
        only=tuple(sorted({name.rpartition("/")[0] for name in known})),
        command=f"python recipes/reference_scores.py {args.dev.name} {args.peers.name}",
    )
    recordings = settings.select(find_recordings(args.dev))
    # Peers name their files without suffixes.
    names = {name.rpartition(".")[0]: name for name in recordings.names}
    _require_same(names.keys() ^ known, args)
    codec = Codec.load(args.model, device="cpu")
    report = evaluate_codec(lambda: codec, args.dev, settings)
    (ours,) = report.systems
    _require_same(ours.failures.keys(), args)
    peers = [_renamed(peer, names) for peer in peers]
    everything = dataclasses.replace(report, systems=(ours, *peers))
    write_page(everything, args.work / "index.html")
    write_json(everything, args.work / "report.json")
    with atomic_path(args.out) as temporary:
        temporary.write_text(_page(report, peers, codec))
    print(f"{args.out}, {args.work / 'index.html'}")


def _require_same(different: Collection[str], args: argparse.Namespace) -> None:
    if different:
        raise ConfigError(
            f"{args.dev} and {args.peers} do not hold the same recordings: "
            f"{', '.join(sorted(different)[:5])}"
        )


def _read_peers(path: Path) -> list[SystemResult]:
    """Systems by rising bit rate."""
    try:
        systems: dict[str, Any] = json.loads(path.read_text())["systems"]
        found = [
            SystemResult(
                _TITLES.get(name, name),
                tuple(_file(*item) for item in sorted(system["files"].items())),
                system["bits_per_second"] / 1000,
                {},
                None,
                {},
            )
            for name, system in systems.items()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a file of scores ({error!r})") from error
    return sorted(found, key=lambda system: system.kbps or 0.0)


def _file(key: str, scores: dict[str, float]) -> FileResult:
    name = key.replace("__", "/", 1)
    return FileResult(name, 0.0, {ours: scores[theirs] for theirs, ours in _SHARED.items()}, {}, "")


def _renamed(peer: SystemResult, names: Mapping[str, str]) -> SystemResult:
    files = [dataclasses.replace(f, name=names[f.name]) for f in peer.files if f.name in names]
    return dataclasses.replace(peer, files=tuple(files))


def _page(report: Report, peers: list[SystemResult], codec: Codec) -> str:
    (ours,) = report.systems
    shared = {metric.name: metric for metric in report.metrics if metric.name in _SHARED.values()}
    systems = [ours, *peers]
    use = ours.codebook["all"]
    lines = [
        "# Reference scores",
        "",
        _paragraph(
            f"The model `{codec.name}` ({codec.model_id}) beside other codecs on the same "
            f"{len(ours.files)} recordings: decoded file against the original, means over files "
            "with 95 % bootstrap intervals. Codec2 1.0.5, Opus 1.3.1 (`opusenc --bitrate 6 "
            "--framesize 20 --comp 10`, without the Ogg container) and Lyra v2 (its published "
            "models) were scored at 16 kHz with their constant delay removed."
        ),
        "",
        *_table(systems, ALL, shared),
        "",
        _paragraph(
            f"Codebook: {100 * use.utilisation:.1f} % of {use.codebook_size} codes used in "
            f"{use.frames} frames, perplexity {use.perplexity:.0f}, entropy {use.entropy:.2f} bits."
        ),
        "",
        _paragraph(
            "What the model scores more than each (negative: less), on the same recordings, with "
            "95 % intervals; all p-values of the Wilcoxon signed-rank test that are not named are "
            "below .001:"
        ),
        "",
        *_differences(ours, peers, shared),
    ]
    for folder in [name for name in ours.by_folder() if name != ALL]:
        lines += ["", f"## {folder}", "", *_table(systems, folder, shared)]
    lines += ["", "## Every metric", "", *_everything(report, ours)]
    failures = sum("pesq_wb" in file.problems for file in ours.files)
    lines += ["", "## Beside the papers", "", _PAPERS]
    lines += [_DIFFERENCES.format(files=len(ours.files), failures=failures)]
    lines += [
        "## Made by",
        "",
        "```sh",
        "python recipes/reference_scores.py DEV PEERS.json",
        "```",
        "",
        _paragraph(
            f"On {report.machine}; "
            + ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
            + "."
        ),
    ]
    return "\n".join(lines) + "\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(systems: list[SystemResult], folder: str, metrics: dict[str, MetricInfo]) -> list[str]:
    titles = [metric.title for metric in metrics.values()]
    rows = [_row(["", "files", "kbit/s", *titles]), _row(["---"] * (3 + len(titles)))]
    summary = summarise(systems, list(metrics))
    for system in systems:
        found = summary.means[system.name][folder]
        cells = [_interval(found[name], metric.digits) for name, metric in metrics.items()]
        name = f"**{system.name}**" if system is systems[0] else system.name
        count = summary.counts[system.name][folder]
        rows.append(_row([name, str(count), f"{system.kbps:.2f}", *cells]))
    return rows


def _differences(
    ours: SystemResult, peers: list[SystemResult], metrics: dict[str, MetricInfo]
) -> list[str]:
    titles = [metric.title for metric in metrics.values()]
    rows = [_row(["against", *titles]), _row(["---"] * (1 + len(titles)))]
    for peer in peers:
        cells = []
        for name, metric in metrics.items():
            test = paired_test(peer.scores(name), ours.scores(name))
            assert test is not None and test.p_value is not None
            doubt = f", p = {test.p_value:.2g}" if test.p_value >= 0.001 else ""
            cells.append(_interval(test.difference, metric.digits, "+") + doubt)
        rows.append(_row([peer.name, *cells]))
    return rows


def _everything(report: Report, ours: SystemResult) -> list[str]:
    groups = report.summary.means[ours.name]
    rows = [_row(["metric", *groups]), _row(["---"] * (1 + len(groups)))]
    for metric in report.metrics:
        cells = []
        for means in groups.values():
            mean = means.get(metric.name)
            cells.append("" if mean is None else f"{mean.value:.{metric.digits}f}")
        unit = f" ({metric.unit})" if metric.unit else ""
        rows.append(_row([metric.title + unit, *cells]))
    return rows


def _interval(mean: Mean, digits: int, sign: str = "") -> str:
    value, low, high = (f"{x:{sign}.{digits}f}" for x in (mean.value, mean.low, mean.high))
    return f"{value} ({low} to {high})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
