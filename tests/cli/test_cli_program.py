"""The program around the commands: help, versions, errors, and what describes files and models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simvq_audio.bitstream import OVERHEAD_BYTES, Codes


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_loads_nothing_heavy() -> None:
    done = python(
        "-c",
        "import sys\n"
        "from simvq_audio.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'soundfile', 'soxr', 'matplotlib', 'jinja2'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
    assert "encode" in done.stdout


def test_python_m() -> None:
    done = python("-m", "simvq_audio", "--help")
    assert done.returncode == 0 and "Usage: simvq-audio" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    "command",
    [None, "encode", "decode", "evaluate", "compare", "plot", "info", "models", "import-published"],
)
def test_help(run, command: str | None, flag: str) -> None:
    ended = run(*([command] if command else []), flag)
    assert (ended.code, ended.errors) == (0, "")
    assert "Usage: simvq-audio" in ended.text
    if command in (None, "encode", "decode", "evaluate", "compare"):
        assert "Examples" in ended.text


def test_version(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simvq_audio.__version__", "1.2.3")
    ended = run("--version")
    assert (ended.code, ended.text.strip()) == (0, "simvq-audio 1.2.3")


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "a.wav"],
        ["encode", "a.wav", "a.codes", "--batch-seconds", "0"],
        ["decode", "a.codes", "a.wav", "--format", "mp3"],
        ["transcode", "a", "b"],
        ["info", "a", "--none"],
    ],
)
def test_wrong_usage_is_code_2(toy, run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert "Usage: simvq-audio" in ended.errors
    assert toy.loads == []


def failing(error: BaseException):
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(13, "Permission denied", "x.codes"), 1, "x.codes: Permission denied"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError("something else"), 1, "something else"),
        (ValueError("a bug"), None, None),
        (MemoryError(), 1, "out of memory; try a smaller --batch-seconds or --device cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: x"), 1, "out of memory; try"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exceptions(toy, run, monkeypatch, error, code: int | None, message: str | None) -> None:
    monkeypatch.setattr(sys.modules["simvq_audio.embedded"], "embedded_models", failing(error))
    if code is None:
        # A bug, and not a mistake of the user: the traceback is for the bug report.
        with pytest.raises(ValueError, match="a bug"):
            run("models")
        return
    ended = run("models")
    assert (ended.code, ended.output) == (code, b"")
    assert ended.errors.startswith(f"simvq-audio: error: {message}")
    assert ended.errors.count("\n") == 1


def test_a_broken_pipe_is_quiet(toy, run, monkeypatch) -> None:
    error = BrokenPipeError(32, "Broken pipe")
    monkeypatch.setattr(sys.modules["simvq_audio.embedded"], "embedded_models", failing(error))
    ended = run("models")
    assert (ended.code, ended.output, ended.errors) == (1, b"", "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise on this system")
def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "simvq_audio", "--help"]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_info(tmp_path: Path, toy, run) -> None:
    path = tmp_path / "a.codes"
    Codes(np.zeros((2, 1000), np.int32), 256, toy.codes_id, 44_100, 44_100).save(path)
    result = json.loads(run("info", path, "--json").text)
    size = path.stat().st_size
    assert size == 2000 + OVERHEAD_BYTES
    assert result == {
        "file": str(path),
        "file_bytes": size,
        "header_bytes": OVERHEAD_BYTES,
        "seconds": 1.0,
        "channels": 2,
        "sample_rate": 44_100,
        "num_samples": 44_100,
        "frames": 1000,
        "codebook_size": 256,
        "bits_per_code": 8,
        "file_kbps": pytest.approx(8 * size / 1000),
        "coded_kbps": pytest.approx(16.0),
        "nominal_kbps": pytest.approx(16.0),
        "codes_id": toy.codes_id,
        "model": "toy",
        "coding": "fixed",
        "prior_id": None,
        "blocks": 0,
        "plain_blocks": 0,
    }
    ended = run("info", path)
    assert ended.code == 0
    for words in ("2 channels at 44100 Hz", "1.00 s", "16.000", "toy", toy.codes_id, "256"):
        assert words in ended.text
    assert toy.loads == []


def test_info_about_an_empty_recording_of_another_model(tmp_path: Path, toy, run) -> None:
    path = tmp_path / "a.codes"
    Codes(np.zeros((1, 0), np.int32), 4096, "f" * 12, 8000, 0).save(path)
    result = json.loads(run("info", path, "--json").text)
    assert (result["seconds"], result["file_kbps"], result["model"]) == (0.0, 0.0, None)
    ended = run("info", path)
    assert ended.code == 0 and "another model" in ended.text


def test_info_refuses(tmp_path: Path, toy, run) -> None:
    run("info", tmp_path / "no.codes").assert_refused("no.codes")
    (tmp_path / "a.codes").write_text("text")
    run("info", tmp_path / "a.codes").assert_refused("not a .codes file")


def test_spaces_in_file_names_stay(tmp_path: Path, toy, run) -> None:
    run("info", tmp_path / "a  b.codes").assert_refused("a  b.codes")


def test_models(toy, run, tmp_path: Path) -> None:
    assert json.loads(run("models", "--json").text) == {
        "models": [
            {
                "name": "toy",
                "codes_id": toy.codes_id,
                "model_id": "ba9876543210",
                "sample_rate": 8_000,
                "frame_rate": 1000.0,
                "codebook_size": 256,
                "kbps": 8.0,
                "parameters": 42,
                "file_bytes": 12_345,
                "licence": "MIT",
                "description": "Levels of eight samples.",
                "path": str(tmp_path / "toy.safetensors"),
            }
        ]
    }
    ended = run("models")
    assert ended.code == 0
    for words in (
        "toy: Levels of eight samples.",
        toy.codes_id,
        "8.000 kbit/s",
        "12.3 kB",
        "MIT",
    ):
        assert words in ended.text
    assert toy.loads == []


def test_import_published(tmp_path: Path, toy, run) -> None:
    checkpoint, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    run("import-published", checkpoint, out).assert_refused("a.ckpt: no such file")
    checkpoint.touch()
    run("import-published", checkpoint, checkpoint).assert_refused("same path")
    run("import-published", checkpoint, tmp_path / "no" / "a").assert_refused("no such folder")
    ended = run("import-published", checkpoint, out)
    assert ended.code == 0 and "4096" in ended.text and "ema weights" in ended.text
    run("import-published", checkpoint, out).assert_refused("exists; --force")
    ended = run("import-published", checkpoint, out, "--raw", "--force")
    assert ended.code == 0 and "raw weights" in ended.text


def test_names_that_the_terminal_cannot_show(tmp_path: Path, toy, run) -> None:
    path = tmp_path / "\u0448.codes"
    Codes(np.zeros(10, np.int32), 256, toy.codes_id, 8000, 80).save(path)
    ended = run("info", path, encoding="ascii")
    assert (ended.code, ended.errors) == (0, "")
    assert "\\u0448.codes" in ended.text


def test_names_in_brackets_are_no_markup(tmp_path: Path, toy, run) -> None:
    path = tmp_path / "a [bold]b.codes"
    Codes(np.zeros(10, np.int32), 256, toy.codes_id, 8000, 80).save(path)
    assert "a [bold]b.codes" in run("info", path).text
