"""The masked prior: its file, its windows over long recordings, and drawing from it."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from random_masked import SHAPE, random_masked_prior

from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.prior.masked import load_masked_prior, read_masked_header, save_masked_prior
from simvq_audio.prior.masked.filling import MARGIN, PASSES, SHARPNESS, WINDOW, fill
from simvq_audio.prior.masked.network import MaskedPrior, MaskedShape
from simvq_audio.prior.masked.sampling import ORDERS, Sampling, sample


@pytest.fixture(scope="module")
def prior() -> MaskedPrior:
    return random_masked_prior()


@pytest.fixture(scope="module")
def codebook() -> torch.Tensor:
    return torch.randn(512, 5, generator=torch.Generator().manual_seed(1))


def recording(frames: int, share: float, rows: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 512, (rows, frames)), rng.random((rows, frames)) < share


def test_parameters_are_counted(prior):
    assert SHAPE.parameters == sum(p.numel() for p in prior.parameters())


def test_a_code_depends_on_both_sides_and_not_on_what_stands_at_lost_places(prior):
    codes, _ = recording(40, 0)
    lost = np.zeros((1, 40), bool)
    lost[0, [10, 20]] = True
    given, gone = torch.from_numpy(codes), torch.from_numpy(lost)
    logits = prior(given, gone)
    assert logits.shape == (2, 512)
    for place in (5, 30):
        other = given.clone()
        other[0, place] = (other[0, place] + 7) % 512
        assert not torch.allclose(prior(other, gone)[1], logits[1], atol=1e-3)
    other = given.clone()
    other[gone] = 3
    assert torch.equal(prior(other, gone), logits)


def test_file_round_trip(prior, tmp_path):
    path = tmp_path / "a.safetensors"
    save_masked_prior(path, prior, "0123456789ab", {"description": "random"})
    header = read_masked_header(path)
    assert (header.codes_id, header.metadata) == ("0123456789ab", {"description": "random"})
    assert header.file_bytes == path.stat().st_size
    loaded = load_masked_prior(path)
    for name, value in prior.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())


def with_header(data: bytes, change) -> bytes:
    """The file with another description in its metadata."""
    length = struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8 : 8 + length])
    key = "simvq_audio_masked_prior"
    header = json.loads(entries["__metadata__"][key])
    change(header)
    entries["__metadata__"][key] = json.dumps(header)
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(format=9),
        lambda h: h.pop("codes_id"),
        lambda h: h.update(shape=3),
        lambda h: h["shape"].update(width=10**9),
        lambda h: h["shape"].update(layers=60),
        lambda h: h["shape"].update(layers=1),
        lambda h: h["shape"].update(heads=3),
        lambda h: h["shape"].update(height=3),
    ],
)
def test_other_headers_are_refused(prior, tmp_path, change):
    path = tmp_path / "a.safetensors"
    save_masked_prior(path, prior, "0123456789ab")
    path.write_bytes(with_header(path.read_bytes(), change))
    with pytest.raises(ModelError):
        load_masked_prior(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 40, b"\xff" * 40, b"\2\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        load_masked_prior(path)
    with pytest.raises(ModelError):
        load_masked_prior(tmp_path / "missing")


def isolated(lost: np.ndarray) -> np.ndarray:
    """The same without losses of several frames in a row."""
    return lost & (np.arange(lost.shape[1]) % 2 == 0)


def test_single_frames_of_a_short_recording_are_one_pass(prior, codebook):
    codes, lost = recording(WINDOW - 2 * MARGIN, 0.4, rows=2)
    lost = isolated(lost)
    filled = fill(prior, codebook, codes, lost)
    logits = prior(torch.from_numpy(codes), torch.from_numpy(lost))
    np.testing.assert_array_equal(filled.codes, logits.argmax(1).numpy())
    expected = ((SHARPNESS * logits).softmax(1) @ codebook).numpy()
    np.testing.assert_allclose(filled.latents, expected, atol=1e-4)


@pytest.mark.parametrize("gap", [(20, 25), (0, 4), (36, 40), (10, 30)])
def test_a_gap_is_filled_from_its_ends_inwards(prior, codebook, gap):
    codes, lost = recording(40, 0)
    lost[0, slice(*gap)] = True
    filled = fill(prior, codebook, codes, lost)
    left, expected = lost[0].copy(), codes[0].copy()
    for number in range(PASSES):
        places = np.flatnonzero(left)
        known = set(np.flatnonzero(~left))
        edges = [i for i in places if {i - 1, i + 1} & known or number == PASSES - 1]
        best = fill_whole(prior, expected, left)
        expected[edges] = best[edges]
        left[edges] = False
        if not left.any():
            break
    np.testing.assert_array_equal(filled.codes, expected[lost[0]])


def test_a_long_recording_is_filled_window_by_window(prior, codebook):
    codes, lost = recording(1000, 0.4, rows=3)
    lost = isolated(lost)
    filled = fill(prior, codebook, codes, lost)
    places = list(zip(*np.nonzero(lost)))
    core = WINDOW - 2 * MARGIN
    for row, first in ((0, 0), (1, core), (2, 5 * core)):
        start, end = max(0, first - MARGIN), min(1000, first + core + MARGIN)
        part = fill_whole(prior, codes[row, start:end], lost[row, start:end])
        for frame in np.flatnonzero(lost[row, first : first + core]) + first:
            index = places.index((row, frame))
            assert filled.codes[index] == part[frame - start]


def fill_whole(prior, codes, lost):
    logits = prior(torch.from_numpy(codes)[None], torch.from_numpy(lost)[None])
    best = np.full(len(codes), -1)
    best[lost] = logits.argmax(1).numpy()
    return best


def test_rows_do_not_affect_each_other(prior, codebook):
    codes, lost = recording(300, 0.3, rows=4)
    lost[2] = False
    together = fill(prior, codebook, codes, lost)
    alone = [fill(prior, codebook, codes[i : i + 1], lost[i : i + 1]) for i in range(4)]
    np.testing.assert_array_equal(together.codes, np.concatenate([a.codes for a in alone]))
    latents = np.concatenate([a.latents for a in alone])
    np.testing.assert_allclose(together.latents, latents, atol=1e-4)


def test_entries_limit_what_may_stand_there(prior, codebook):
    codes, lost = recording(100, 0.3)
    lost = isolated(lost)
    entries = torch.arange(100, 130)
    filled = fill(prior, codebook, codes, lost, entries)
    logits = prior(torch.from_numpy(codes), torch.from_numpy(lost))[:, entries]
    np.testing.assert_array_equal(filled.codes, logits.argmax(1).numpy())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("frames", "steps"), [(40, 1), (40, 8), (600, 5), (3, 50)])
def test_all_hidden_codes_are_drawn_and_the_others_stay(prior, order, frames, steps):
    codes, hidden = recording(frames, 0.7)
    how = Sampling(order, steps)
    codes[hidden] = -1
    drawn = sample(prior, np.where(hidden, 0, codes)[0], hidden[0], how, 3)
    np.testing.assert_array_equal(drawn[~hidden[0]], codes[0][~hidden[0]])
    assert drawn.min() >= 0
    assert drawn.max() < 512
    again = sample(prior, np.where(hidden, 9, codes)[0], hidden[0], how, 3)
    np.testing.assert_array_equal(drawn, again)
    if hidden.sum() > 10:
        other = sample(prior, np.where(hidden, 0, codes)[0], hidden[0], how, 4)
        assert (other != drawn).any()


def test_temperature_zero_in_one_step_takes_the_most_probable(prior):
    codes, hidden = recording(50, 0.4)
    drawn = sample(prior, codes[0], hidden[0], Sampling(steps=1, temperature=0), 0)
    logits = prior(torch.from_numpy(codes), torch.from_numpy(hidden))
    np.testing.assert_array_equal(drawn[hidden[0]], logits.argmax(1).numpy())


def test_one_ancestral_step_draws_from_the_distribution(prior):
    codes, hidden = recording(12, 0)
    hidden[0, 6] = True
    logits = 2 * prior(torch.from_numpy(codes), torch.from_numpy(hidden))[0]
    how = Sampling("ancestral", 1, 0.5)
    counts = np.zeros(512)
    for seed in range(400):
        counts[sample(prior, codes[0], hidden[0], how, seed)[6]] += 1
    share = logits.softmax(0).numpy()
    most = share.argmax()
    assert abs(counts[most] / 400 - share[most]) < 4 * np.sqrt(share[most] / 400) + 0.01


@pytest.mark.parametrize(
    "values",
    [{"order": "x"}, {"steps": 0}, {"steps": 10**6}, {"temperature": -1}, {"noise": np.nan}],
)
def test_other_samplings_are_refused(values):
    with pytest.raises(ConfigError):
        Sampling(**values)


@pytest.mark.parametrize(
    "values", [{"width": 0}, {"layers": 65}, {"heads": 7}, {"taps": -1}, {"query": 1.5}]
)
def test_other_shapes_are_refused(values):
    with pytest.raises(ConfigError):
        MaskedShape(**values)
