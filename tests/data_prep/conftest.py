"""A small tree that looks like LibriTTS."""

from __future__ import annotations

import pytest
from prepare_commands import write_noise


@pytest.fixture
def libritts_tree(tmp_path):
    """Two subsets laid out as LibriTTS is, with its texts; one recording is no audio."""
    root = tmp_path / "given"
    names = {
        "dev-clean": ["84/121123/84_121123_000007_000001", "84/121550/84_121550_000007_000000"],
        "train-clean-100": [
            "103/1240/103_1240_000000_000001",
            "1034/121119/1034_121119_000001_000001",
        ],
    }
    for subset, stems in names.items():
        for index, stem in enumerate(stems):
            path = root / "LibriTTS" / subset / f"{stem}.wav"
            write_noise(path, 0.5 + index)
            path.with_suffix(".normalized.txt").write_text("Text.\n")
            path.with_suffix(".original.txt").write_text("Text.\n")
    broken = root / "LibriTTS/train-clean-100/103/1240/103_1240_000000_000002.wav"
    broken.write_bytes(b"not audio at all, but long enough for a header to be looked for in it")
    return root
