"""The commands that prepare data as functions, and recordings of noise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from simvq_audio.cli import main


def program(*command: str) -> SimpleNamespace:
    """``simvq-audio COMMAND`` as a function of further arguments that returns the exit code."""

    def run(arguments: list[str]) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*command, *arguments])
        return ended.value.code or 0

    return SimpleNamespace(main=run)


def write_noise(path: Path, seconds: float, rate: int = 24_000, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, noise, rate)
