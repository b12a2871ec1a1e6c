"""The prior in the package codes today as it did when the files under tests/data were written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from simvq_audio.bitstream import Codes

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "hello-765d88f1.codes"


def test_golden_file() -> None:
    indices = np.load(DATA / "hello-c3de87daa4a2.npy")
    codes = Codes.load(GOLDEN)
    np.testing.assert_array_equal(codes.indices, np.atleast_2d(indices))
    assert codes.to_bytes() == GOLDEN.read_bytes()
    assert GOLDEN.read_bytes()[5] == 1


def test_the_same_codes_as_in_the_older_file() -> None:
    old = Codes.load(DATA / "hello-c3de87daa4a2.codes")
    assert Codes.load(GOLDEN) == dataclasses.replace(old, codes_id="c153ae81d324")
