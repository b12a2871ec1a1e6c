"""The commands that score: ``evaluate`` for this codec, ``compare`` for the output of others."""

from __future__ import annotations

import os
import shlex
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simvq_audio.cli.console import PROGRAM, CommandError, print_message, progress
from simvq_audio.cli.options import DeviceOption, JsonOption, ModelOption, QuietOption
from simvq_audio.cli.paths import refuse_target_file
from simvq_audio.errors import MissingExtraError

if TYPE_CHECKING:
    from simvq_audio.codec import Codec
    from simvq_audio.evaluation.metric import Metric
    from simvq_audio.evaluation.results import Report
    from simvq_audio.evaluation.runner import EvaluationOptions

PAGE_NAME, JSON_NAME, CSV_NAME = "index.html", "report.json", "scores.csv"
# Values of --metrics that name several metrics.
_METRIC_SETS = frozenset({"default", "all"})
# Needed by every report, and also by its page.
_REPORT_PACKAGES = ("scipy",)
_PAGE_PACKAGES = ("jinja2", "matplotlib")

COMPARE_EXAMPLES = """
[bold]Examples[/bold]

simvq-audio compare recordings/ opus=opus-6k/ codec2=codec2-3200/ --bitrate opus=5.48 --out report/
"""


class ProtocolName(str, Enum):
    """How signals are prepared for scoring."""

    default = "default"
    simvq = "simvq"


class HalfName(str, Enum):
    """Halves of a development set."""

    choose = "choose"
    report = "report"


OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="REPORT_DIR",
        help=f"Write {PAGE_NAME}, {JSON_NAME} and {CSV_NAME} here, with all results; "
        "run again, the command goes on where it was.",
        show_default=False,
    ),
]
CsvFileOption = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write a row for each file.", show_default=False),
]
MetricsOption = Annotated[
    str,
    typer.Option("--metrics", metavar="NAMES", help="Names separated by commas, default, or all."),
]
ProtocolOption = Annotated[
    ProtocolName,
    typer.Option("--protocol", help="simvq: as the SimVQ paper prepares signals."),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Processes for scoring. Default: one per core.",
        show_default=False,
    ),
]
PlayersOption = Annotated[
    int,
    typer.Option("--players", min=0, metavar="N", help="Recordings to play on the page."),
]
HalfOption = Annotated[
    HalfName | None,
    typer.Option(
        "--half",
        help="Only this half of the speakers, as named in DIR/manifest.jsonl.",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="FOLDER",
        help="Only this folder below DIR; may be repeated.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        metavar="N",
        help="Only N recordings, spread evenly.",
        show_default=False,
    ),
]


def evaluate(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of recordings, with its subfolders.")
    ],
    model: ModelOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    csv_file: CsvFileOption = None,
    metrics: MetricsOption = "default",
    protocol: ProtocolOption = ProtocolName.default,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    players: PlayersOption = 40,
    half: HalfOption = None,
    only: OnlyOption = None,
    limit: LimitOption = None,
    quiet: QuietOption = False,
) -> None:
    """Code every recording of a folder, decode it, and score the result.

    With --out, an interrupted run goes on where it was; existing reports are overwritten. Files
    that fail are listed, and the exit code is 1.
    """
    output = _Output(out, csv_file, players, quiet, as_json)
    output.check()
    if out is not None:
        _refuse_nested(folder, out)
    settings = _settings(context, output, _find_metrics(metrics), protocol, jobs, half, only, limit)
    # The slow imports come after the checks.
    from simvq_audio.evaluation.evaluate import evaluate_codec

    output.deliver(evaluate_codec(partial(_load_codec, model, device), folder, settings))


def compare(
    context: typer.Context,
    reference: Annotated[
        Path, typer.Argument(metavar="REF_DIR", help="The folder of the original recordings.")
    ],
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=DIR...", help="Name of a codec, and the folder of its decoded files."
        ),
    ],
    bitrate: Annotated[
        list[str] | None,
        typer.Option(
            "--bitrate",
            metavar="NAME=KBPS",
            help="Bit rate of a codec in kbit/s; may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    csv_file: CsvFileOption = None,
    metrics: MetricsOption = "default",
    protocol: ProtocolOption = ProtocolName.default,
    jobs: JobsOption = None,
    players: PlayersOption = 40,
    half: HalfOption = None,
    only: OnlyOption = None,
    limit: LimitOption = None,
    quiet: QuietOption = False,
) -> None:
    """Score the output of codecs for the same recordings, each against the first.

    Files are paired by their paths below the folders: of a/b.flac the decoded file is a/b.flac,
    a/b.flac.wav or a/b.wav (any suffix of a recording). The constant delay of each codec is
    found and removed. Files that fail or have no partner are listed, and the exit code is 1.
    """
    output = _Output(out, csv_file, players, quiet, as_json)
    output.check()
    folders = {name: Path(value) for name, value in _assignments(systems, "NAME=DIR").items()}
    rates = _bitrates(bitrate or [], folders)
    settings = _settings(
        context, output, _find_metrics(metrics, coded=False), protocol, jobs, half, only, limit
    )
    from simvq_audio.evaluation.compare import compare_systems

    output.deliver(compare_systems(reference, folders, rates, settings))


class _Output:
    """Where a report goes."""

    def __init__(
        self,
        out: Path | None,
        csv_file: Path | None,
        players: int,
        quiet: bool,
        as_json: bool,
    ) -> None:
        self.out = out
        self.quiet = quiet
        self._as_json = as_json
        self._csv_file = csv_file
        self._players = players

    def check(self) -> None:
        """Refuse outputs that could not be written, before any work.

        Raises:
            CommandError: a path cannot be used.
            MissingExtraError: what the report needs is not installed.
        """
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise CommandError(f"{self.out}: is a file; --out takes a folder")
        if self._csv_file is not None:
            refuse_target_file(self._csv_file, force=True)
        _require(_REPORT_PACKAGES + _PAGE_PACKAGES * (self.out is not None))

    def deliver(self, report: Report) -> None:
        """Write and print a report.

        Raises:
            CommandError: recordings failed; raised after everything is written.
        """
        from simvq_audio.cli.report_table import print_failures, print_report
        from simvq_audio.evaluation.report.files import report_to_json, write_csv, write_json

        if self._csv_file is not None:
            write_csv(report, self._csv_file)
        if self.out is not None:
            from simvq_audio.evaluation.report.page import write_page

            write_json(report, self.out / JSON_NAME)
            write_csv(report, self.out / CSV_NAME)
            write_page(report, self.out / PAGE_NAME, players=self._players)
        if self._as_json:
            print(report_to_json(report), end="")
        elif not self.quiet:
            print_report(report)
            if self.out is not None:
                print_message(f"{self.out / PAGE_NAME}: the report")
        failed = print_failures(report)
        if failed:
            raise CommandError(f"{failed} failed; the others are in the report")


def _settings(
    context: typer.Context,
    output: _Output,
    metrics: list[type[Metric]],
    protocol: ProtocolName,
    jobs: int | None,
    half: HalfName | None,
    only: list[str] | None,
    limit: int | None,
) -> EvaluationOptions:
    from simvq_audio.evaluation.protocol import find_protocol
    from simvq_audio.evaluation.runner import EvaluationOptions

    arguments = context.find_root().obj or ()
    return EvaluationOptions(
        tuple(metrics),
        find_protocol(protocol.value),
        jobs or _cores(),
        output.out,
        tuple(only or ()),
        None if half is None else half.value,
        limit,
        shlex.join([PROGRAM, *arguments]),
        partial(progress, quiet=output.quiet),
    )


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load_codec(model: str | None, device: str) -> Codec:
    from simvq_audio.codec import Codec

    return Codec.load(model, device=device)


def _find_metrics(names: str, *, coded: bool = True) -> list[type[Metric]]:
    """The metrics of --metrics; without codes, only those of a set that need none.

    Raises:
        CommandError: a metric that was named needs codes, and there are none.
    """
    from simvq_audio.evaluation.registry import find_metrics

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    found = find_metrics(wanted)
    if coded:
        return found
    named = {name for name in wanted if name not in _METRIC_SETS}
    impossible = [metric.name for metric in found if metric.needs_coding and metric.name in named]
    if impossible:
        raise CommandError(
            f"{', '.join(impossible)}: needs codes, but compare has only decoded files; "
            "use evaluate"
        )
    return [metric for metric in found if not metric.needs_coding]


def _refuse_nested(folder: Path, out: Path) -> None:
    """Refuse a report inside the recordings, whose decoded files would be taken for recordings."""
    source, target = folder.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise CommandError(
            f"{out}: --out and DIR must not lie in each other; decoded files would be taken for "
            "recordings"
        )


def _assignments(texts: list[str], form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise CommandError(f"{text}: is not of the form {form}")
        if name in found:
            raise CommandError(f"{text}: {name} is given twice")
        found[name] = value
    return found


def _bitrates(texts: list[str], systems: dict[str, Path]) -> dict[str, float]:
    rates = {}
    for name, value in _assignments(texts, "NAME=KBPS").items():
        if name not in systems:
            raise CommandError(
                f"--bitrate {name}={value}: there is no such system; given are {', '.join(systems)}"
            )
        try:
            rates[name] = float(value)
        except ValueError:
            rates[name] = 0.0
        if not 0 < rates[name] < float("inf"):
            raise CommandError(f"--bitrate {name}={value}: KBPS must be a number above 0")
    return rates


def _require(packages: tuple[str, ...]) -> None:
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"{', '.join(missing)}: not installed; evaluation comes with: "
            "pip install 'simvq-audio[eval]'"
        )
