"""A toy codec in place of the models, and a way to run the program inside the test process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from simvq_audio.audio import Resampler, resampled_length
from simvq_audio.bitstream import Codes
from simvq_audio.cli import main
from simvq_audio.errors import CodesError, ConfigError, ModelError

CODES_ID = "0123456789ab"
TOY_RATE = 8_000
TOY_HOP = 8
TOY_LEVELS = 256


class ToyCodec:
    """Codes each 8 samples at 8 kHz as one of 256 levels; has the interface of ``Codec``.

    Class attributes, which each test gets fresh, record and control what it does.
    """

    loads: list[dict[str, object]]
    batches: list[list[int]]
    streams: int
    fail_encoding: Callable[[np.ndarray], Exception | None]
    fail_decoding_after: int | None

    name = "toy"
    codes_id = CODES_ID
    sample_rate = TOY_RATE
    hop_length = TOY_HOP
    frame_rate = TOY_RATE / TOY_HOP
    codebook_size = TOY_LEVELS
    bitrate = 8 * TOY_RATE / TOY_HOP
    device = "cpu"

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        batch_seconds: float = 30.0,
    ) -> ToyCodec:
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device {device!r} is not available")
        if model is not None and not Path(model).exists():
            raise ModelError(f"{model}: no such model")
        cls.loads.append({"model": model, "device": device, "batch_seconds": batch_seconds})
        return cls()

    def encode(self, waveform: np.ndarray, sample_rate: int) -> Codes:
        error = type(self).fail_encoding(waveform)
        if error is not None:
            raise error
        waveform = np.atleast_2d(waveform)
        channels, num_samples = waveform.shape
        native = Resampler(sample_rate, TOY_RATE, channels).push(waveform.T, final=True).T
        native = np.pad(native, ((0, 0), (0, -native.shape[1] % TOY_HOP)))
        means = native.reshape(channels, -1, TOY_HOP).mean(2)
        indices = np.clip(np.rint(means * 128) + 128, 0, TOY_LEVELS - 1).astype(np.int32)
        return Codes(indices, TOY_LEVELS, CODES_ID, sample_rate, num_samples)

    def encode_batch(self, waveforms: list[np.ndarray], sample_rates: list[int]) -> list[Codes]:
        self.batches.append([waveform.shape[-1] for waveform in waveforms])
        return [self.encode(*pair) for pair in zip(waveforms, sample_rates, strict=True)]

    def encode_stream(self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int) -> Codes:
        type(self).streams += 1
        whole = np.concatenate([np.zeros((0, channels), np.float32), *blocks])
        return self.encode(whole.T, sample_rate)

    def decode_stream(self, codes: Codes, *, native_rate: bool = False) -> Iterator[np.ndarray]:
        self.check(codes)
        rate = TOY_RATE if native_rate else codes.sample_rate
        native = np.repeat((codes.indices - 128).astype(np.float32) / 128, TOY_HOP, axis=1).T
        whole = Resampler(TOY_RATE, rate, codes.channels).push(native, final=True)
        whole = whole[: resampled_length(codes.num_samples, codes.sample_rate, rate)]
        for start in range(0, len(whole), 1000):
            if self.fail_decoding_after is not None and start >= self.fail_decoding_after:
                raise CodesError("decoding fails on purpose")
            yield whole[start : start + 1000]

    def codes_from_indices(self, indices: np.ndarray) -> Codes:
        frames = indices.shape[-1]
        return Codes(indices, TOY_LEVELS, CODES_ID, TOY_RATE, frames * TOY_HOP)

    def check(self, codes: Codes) -> None:
        if codes.codes_id != CODES_ID:
            raise CodesError(f"these codes belong to the model {codes.codes_id}")


def _import_published(checkpoint: Path, out: Path, *, raw: bool) -> SimpleNamespace:
    if not checkpoint.exists():
        raise ModelError(f"{checkpoint}: no such file")
    out.write_bytes(b"model")
    source = "raw" if raw else "ema"
    return SimpleNamespace(codebook_size=4096, parameters=12_345_678, source=source)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[ToyCodec]:
    """Put the toy codec, one embedded model and a toy importer in place of the real ones."""

    class FreshToy(ToyCodec):
        loads: ClassVar[list[dict[str, object]]] = []
        batches: ClassVar[list[list[int]]] = []
        streams = 0
        fail_encoding = staticmethod(lambda waveform: None)
        fail_decoding_after = None

    entry = SimpleNamespace(
        name="toy",
        codes_id=CODES_ID,
        model_id="ba9876543210",
        decodes=lambda codes_id: codes_id == CODES_ID,
        sample_rate=TOY_RATE,
        frame_rate=ToyCodec.frame_rate,
        codebook_size=TOY_LEVELS,
        bitrate=ToyCodec.bitrate,
        parameters=42,
        file_bytes=12_345,
        licence="MIT",
        description="Levels of eight samples.",
        path=tmp_path / "toy.safetensors",
    )
    for name, content in {
        "simvq_audio.codec": {"Codec": FreshToy},
        "simvq_audio.embedded": {"embedded_models": lambda: [entry]},
        "simvq_audio.model.published_import": {"import_published": _import_published},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return FreshToy


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
