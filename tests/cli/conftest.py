"""The program inside the test process, with a small model in place of the embedded one."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

import simvq_audio.codec.model_source
import simvq_audio.embedded
from simvq_audio.cli import main
from simvq_audio.codec import Codec
from simvq_audio.embedded import EmbeddedModel


@dataclass
class Small:
    """The small model as the program sees it, and what it was loaded for.

    Attributes:
        codec: of the same model.
        loads: the arguments of each time that the program loaded a model.
    """

    codec: Codec
    loads: list[dict[str, object]] = field(default_factory=list)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, codec: Codec, model_file: Path) -> Small:
    """Make the small model the only one that is built in."""
    small = Small(codec)
    entry = EmbeddedModel("small", model_file)
    load = Codec.load.__func__

    def noted(cls: type[Codec], model: object = None, **options: object) -> Codec:
        small.loads.append({"model": model, **options})
        return load(cls, model, **options)

    monkeypatch.setattr(Codec, "load", classmethod(noted))
    monkeypatch.setattr(simvq_audio.embedded, "embedded_models", lambda: [entry])
    monkeypatch.setattr(simvq_audio.codec.model_source, "embedded_model", lambda *name: entry)
    return small


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode()

    def assert_refused(self, words: str) -> None:
        """Exit code 1, nothing on standard output, and one line of error with ``words``."""
        assert self.code == 1
        assert self.output == b""
        assert self.errors.startswith("simvq-audio: error: ")
        assert self.errors.count("\n") == 1 and self.errors.endswith("\n")
        assert words in self.errors


class _Pipe(io.BytesIO):
    """A standard input that cannot seek."""

    def seekable(self) -> bool:
        return False

    def seek(self, *position: int) -> int:
        raise OSError("Illegal seek")


@dataclass(frozen=True)
class Program:
    """Runs the program with the standard streams replaced."""

    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: object, stdin: bytes = b"", encoding: str = "utf-8") -> Ended:
        output, errors = io.BytesIO(), io.BytesIO()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(_Pipe(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding, write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(errors, encoding, write_through=True))
            with pytest.raises(SystemExit) as info:
                main([str(argument) for argument in arguments])
            return Ended(int(info.value.code or 0), output.getvalue(), errors.getvalue().decode())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program: ``run("encode", path, ..., stdin=b"")`` gives exit code and outputs."""
    return Program(monkeypatch)


def make_audio(
    path: Path,
    seconds: float = 0.5,
    sample_rate: int = 16_000,
    channels: int = 1,
    frequency: float = 50.0,
) -> np.ndarray:
    """Write a sine, and return it as float, shape (samples, channels)."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    levels = 0.5 / np.arange(1, channels + 1)
    samples = np.sin(2 * np.pi * frequency * time)[:, np.newaxis] * levels
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate)
    return samples


@pytest.fixture(name="make_audio")
def make_audio_fixture() -> Callable[..., np.ndarray]:
    """Return the function that writes test recordings."""
    return make_audio
