"""The JavaScript of the demo page, by node: its own tests, and files exchanged with Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import simvq_audio.prior
from simvq_audio.bitstream import Codes

ROOT = Path(__file__).parents[1]
NODE = shutil.which("node")


def _is_recent(node: str) -> bool:
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)", version)
    return found is not None and int(found[1]) >= 20


pytestmark = pytest.mark.skipif(
    NODE is None or not _is_recent(NODE), reason="needs node 20 or later"
)


def node(*arguments: str | Path) -> str:
    done = subprocess.run([NODE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests():
    output = node("--test", "tests/javascript/codes.test.mjs")
    passed = re.search(r"pass (\d+)", output)
    assert passed and int(passed[1]) >= 8


def test_python_and_javascript_write_the_same_files(tmp_path):
    random = np.random.default_rng(0)
    # Frequent codes gain by entropy coding, random ones do not, so that blocks of both kinds occur.
    likely = np.repeat(random.integers(0, 8192, 26), 30)
    both = np.concatenate([likely[:750], random.integers(0, 8192, 760)])
    files = []
    for name, indices, size, coding in (
        ("likely", likely, 8192, "entropy"),
        ("mixed", np.stack([both, np.roll(both, 750)]), 8192, "entropy"),
        ("fixed", likely, 8192, "fixed"),
        ("odd", random.integers(0, 1000, (3, 77)), 1000, "entropy"),
        ("several", random.integers(0, 100, (2, 3, 41)), (1024, 100, 300), "entropy"),
    ):
        frames = indices.shape[-1]
        codes = Codes(indices, size, "c153ae81d324", 16_000, frames * 213)
        files.append(tmp_path / f"{name}.codes")
        codes.save(files[-1], coding)
    prior = next(Path(simvq_audio.prior.__file__).parent.glob("compact-1.safetensors"))
    node("tests/javascript/rewrite.mjs", prior, *files)
    for file in files:
        assert file.with_name(f"{file.name}.again").read_bytes() == file.read_bytes(), file.name
