"""The masked prior in the package fits ``compact-1``, and is of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from simvq_audio.codec import Codec
from simvq_audio.codec.repair import simulated_loss
from simvq_audio.prior.masked import masked_prior_for_codes
from simvq_audio.prior.masked.filling import fill

HELLO = Path(__file__).parents[1] / "examples" / "hello.wav"


def test_it_is_nearer_to_lost_codes_than_interpolation():
    soundfile = pytest.importorskip("soundfile")
    codec = Codec.load(device="cpu")
    prior = masked_prior_for_codes(codec.codes_id)
    assert prior is not None
    audio, rate = soundfile.read(HELLO, dtype="float32")
    indices = codec.encode(audio, rate).indices
    book = codec.codebook()
    frames, error, straight, right = np.arange(indices.shape[1]), 0.0, 0.0, 0
    for seed in range(8):
        lost = simulated_loss(indices.shape[1], 0.2, 1, seed)
        filled = fill(prior, torch.from_numpy(book), indices, lost[np.newaxis])
        truth, known = book[indices[0]], np.flatnonzero(~lost)
        lines = np.stack([np.interp(frames, known, v) for v in truth[known].T], axis=1)
        error += np.square(filled.latents - truth[lost]).sum()
        straight += np.square(lines[lost] - truth[lost]).sum()
        right += int((filled.codes == indices[0][lost]).sum())
    assert error < straight
    assert right > 0
