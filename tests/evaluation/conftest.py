"""Small folders of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
from noise import write_noise


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Six recordings: two folders and the top; several rates; one of two channels, one short."""
    folder = tmp_path / "recordings"
    write_noise(folder / "a" / "one.wav")
    write_noise(folder / "a" / "two.flac", 0.7, 24_000)
    write_noise(folder / "b" / "one.wav", 0.4, 22_050)
    write_noise(folder / "b" / "stereo.wav", 0.5, 16_000, channels=2)
    write_noise(folder / "b" / "short.wav", 0.2)
    write_noise(folder / "top.wav", 0.6, 48_000)
    return folder
