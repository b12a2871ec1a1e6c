"""Reports with sounds that tell by their pitch which of them is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.results import CodebookUse, FileResult, Report, SystemResult

RATE = 16_000
SECONDS = 6.0
ORIGINAL_HERTZ, DECODED_HERTZ, OTHER_HERTZ = 400, 1600, 3200
HOSTILE = [
    "<script>window.hacked = 1</script>.wav",
    "</script><script>window.hacked = 2</script>.wav",
    "\"><img src=x onerror='window.hacked = 3'>.wav",
    "a$b$ {{ 7 * 7 }} {% raw %} &lt;b&gt; \u2028 ünïcode 語.wav",
]

NUMBER = MetricInfo("level", "Level", "dB", None, "a test", None, 1)
QUALITY = MetricInfo("quality", "Quality", "", True, "a test", 16_000, 2)
ERROR = MetricInfo("error", "Error", "Hz", False, "a test", None, 3)


def tone(path: Path, hertz: float, seconds: float = SECONDS, rate: int = RATE) -> str:
    """Write a sine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), rate)
    return str(path)


def make_report(systems: list[SystemResult], metrics=(NUMBER, QUALITY, ERROR), **changes) -> Report:
    """A report of systems."""
    facts = {
        "protocol": "default",
        "command": "simvq-audio evaluate <dir> & more",
        "machine": "a machine",
        "versions": {"simvq-audio": "0.1.0", "pesq": "0.0.4"},
        "created": "2025-01-02T03:04:05+00:00",
    }
    return Report(tuple(metrics), tuple(systems), **{**facts, **changes})


def system(name: str, files: list[FileResult], **changes) -> SystemResult:
    """One system of a report."""
    facts = {"kbps": 1.0, "codebook": {}, "model_id": None, "failures": {}}
    return SystemResult(name, tuple(sorted(files, key=lambda f: f.name)), **{**facts, **changes})


def file(
    name: str, quality: float | None, reference: str = "none.wav", decoded: str | None = None
) -> FileResult:
    """A recording's result; without a quality it has the reason in its place."""
    scores = {"level": 1.0, "error": 10.0}
    if quality is not None:
        scores["quality"] = quality
    problems = {} if quality is not None else {"quality": "there is <no> speech in it"}
    return FileResult(name, SECONDS, scores, problems, reference, decoded)


USE = CodebookUse(8, 16, (8, 4, 2, 1, 1), 0.625, 3.668, 1.875)


def sounding_report(folder: Path) -> Report:
    """Two systems on five recordings in two folders, all with sound; qualities 1.5 to 5.5."""
    first, second = [], []
    reference = tone(folder / "reference.wav", ORIGINAL_HERTZ)
    decoded = tone(folder / "decoded.wav", DECODED_HERTZ)
    # Another rate, as of a codec of narrow band.
    other = tone(folder / "other.wav", OTHER_HERTZ, rate=8_000)
    for name, quality in {
        "one/c.wav": 3.5,
        "one/a.wav": 1.5,
        "two/e.wav": 5.5,
        "two/b.wav": 2.5,
        "two/d.wav": 4.5,
    }.items():
        first.append(file(name, quality, reference, decoded))
        second.append(file(name, 7.0 - quality / 10, reference, other))
    return make_report(
        [
            system("first", first, codebook={"all": USE}, model_id="0123456789ab"),
            system("second", second, kbps=3.2),
        ]
    )
