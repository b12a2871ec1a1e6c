"""The program around the commands: help, versions, errors, and what describes files and models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from simvq_audio.bitstream import OVERHEAD_BYTES, Codes
from simvq_audio.cli.app import _OUT_OF_MEMORY, app
from simvq_audio.errors import ModelError
from simvq_audio.model.storage import read_header


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
def test_wrong_usage_is_code_2(small, run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert "Usage: simvq-audio" in ended.errors
    assert small.loads == []


@pytest.mark.parametrize("command", _OUT_OF_MEMORY)
def test_memory_hints_name_options_that_the_command_has(command: str) -> None:
    parameters = typer.main.get_command(app).commands[command].params
    known = {name for parameter in parameters for name in parameter.opts}
    assert set(re.findall(r"--[\w-]+", _OUT_OF_MEMORY[command])) <= known


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
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: x"), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exceptions(small, run, monkeypatch, error, code: int | None, message: str | None) -> None:
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


def test_a_broken_pipe_is_quiet(small, run, monkeypatch) -> None:
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


def test_info(tmp_path: Path, small, run) -> None:
    path = tmp_path / "a.codes"
    Codes(np.zeros((2, 1000), np.int32), 256, small.codec.codes_id, 44_100, 44_100).save(path)
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
        "file_kbps": pytest.approx(4 * size / 1000),
        "coded_kbps": pytest.approx(8.0),  # of one channel
        "nominal_kbps": pytest.approx(8.0),
        "codes_id": small.codec.codes_id,
        "model": "small",
        "coding": "fixed",
        "prior_id": None,
        "blocks": 0,
        "plain_blocks": 0,
    }
    ended = run("info", path)
    assert ended.code == 0
    for words in (
        "2 channels at 44100 Hz",
        "1.00 s",
        "8.000",
        "small",
        small.codec.codes_id,
        "256",
    ):
        assert words in ended.text
    assert small.loads == []


def test_info_about_an_empty_recording_of_another_model(tmp_path: Path, small, run) -> None:
    path = tmp_path / "a.codes"
    Codes(np.zeros((1, 0), np.int32), 4096, "f" * 12, 8000, 0).save(path)
    result = json.loads(run("info", path, "--json").text)
    assert (result["seconds"], result["file_kbps"], result["model"]) == (0.0, 0.0, None)
    ended = run("info", path)
    assert ended.code == 0 and "another model" in ended.text


def test_info_refuses(tmp_path: Path, small, run) -> None:
    run("info", tmp_path / "no.codes").assert_refused("no.codes")
    (tmp_path / "a.codes").write_text("text")
    run("info", tmp_path / "a.codes").assert_refused("not a .codes file")


def test_spaces_in_file_names_stay(tmp_path: Path, small, run) -> None:
    run("info", tmp_path / "a  b.codes").assert_refused("a  b.codes")


def test_models(small, run, model_file: Path) -> None:
    assert json.loads(run("models", "--json").text) == {
        "models": [
            {
                "name": "small",
                "codes_id": small.codec.codes_id,
                "model_id": small.codec.model_id,
                "sample_rate": 24_000,
                "frame_rate": 75.0,
                "codebook_size": 512,
                "kbps": 0.675,
                "parameters": read_header(model_file).parameters,
                "file_bytes": model_file.stat().st_size,
                "licence": "",
                "description": "",
                "path": str(model_file),
            }
        ]
    }
    ended = run("models")
    assert ended.code == 0
    for words in (
        "small: ",
        small.codec.codes_id,
        "0.675 kbit/s",
        "codebook of 512 entries",
    ):
        assert words in ended.text
    assert small.loads == []


def _import_published(checkpoint: Path, out: Path, *, raw: bool) -> SimpleNamespace:
    """In place of the importer, which tests/model has tests of."""
    if not checkpoint.exists():
        raise ModelError(f"{checkpoint}: no such file")
    out.write_bytes(b"model")
    source = "raw" if raw else "ema"
    return SimpleNamespace(codebook_size=4096, parameters=12_345_678, source=source)


def test_import_published(tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setattr("simvq_audio.model.published_import.import_published", _import_published)
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


def test_names_that_the_terminal_cannot_show(tmp_path: Path, small, run) -> None:
    path = tmp_path / "\u0448.codes"
    Codes(np.zeros(10, np.int32), 256, small.codec.codes_id, 8000, 80).save(path)
    ended = run("info", path, encoding="ascii")
    assert (ended.code, ended.errors) == (0, "")
    assert "\\u0448.codes" in ended.text


def test_names_in_brackets_are_no_markup(tmp_path: Path, small, run) -> None:
    path = tmp_path / "a [bold]b.codes"
    Codes(np.zeros(10, np.int32), 256, small.codec.codes_id, 8000, 80).save(path)
    assert "a [bold]b.codes" in run("info", path).text
