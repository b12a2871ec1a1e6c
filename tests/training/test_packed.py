from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from simvq_audio.errors import ConfigError
from simvq_audio.training.packed import PackedSpeech, PackWriter
from simvq_audio.training.sampling import CropSampler

RATE = 8000
CROP = 1000


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """20 recordings of 300 to 3000 samples by 4 speakers, in several shards.

    Every sample tells its recording (thousands) and its place there (the rest, modulo 1000).
    """
    folder = tmp_path_factory.mktemp("pack")
    with PackWriter(folder, RATE, shard_bytes=2 * 8000) as writer:
        for number in range(20):
            samples = 300 + 142 * number
            values = 1000 * number + np.arange(samples) % 1000
            writer.add(f"{number}.wav", f"s{number % 4}", values / 32_768, 1000.0 + number)
    return folder


def _open(folder, *, speaker_power=0.5, gain_db=0.0, seed=5, crop=CROP, rate=RATE):
    return PackedSpeech(
        folder,
        sample_rate=rate,
        crop_samples=crop,
        speaker_power=speaker_power,
        gain_db=gain_db,
        seed=seed,
    )


def test_recordings_lie_in_several_shards_none_across(pack):
    index = json.loads((pack / "index.json").read_text())
    assert len(index["shards"]) > 3
    lengths = [shard["samples"] for shard in index["shards"]]
    assert max(lengths) <= 8000
    for row in index["recordings"]:
        assert row["offset"] + row["samples"] <= lengths[row["shard"]]
    assert sum(lengths) == sum(300 + 142 * n for n in range(20))
    for shard in index["shards"]:
        assert (pack / shard["file"]).stat().st_size == 2 * shard["samples"]


def test_crops_are_contiguous_short_clips_tiled_and_bandwidths_theirs(pack):
    data = _open(pack)
    lengths, starts = set(), set()
    for step in range(20):
        waveforms, bandwidths = data.batch(step, 8)
        assert waveforms.shape == (8, CROP) and waveforms.dtype == torch.float32
        assert bandwidths.shape == (8,) and bandwidths.dtype == torch.float32
        for values, bandwidth in zip((waveforms * 32_768).round().long(), bandwidths):
            number = int(bandwidth) - 1000
            samples = 300 + 142 * number
            assert (values // 1000 == number).all(), "from one recording, and its own bandwidth"
            start = 0 if samples <= CROP else int(values[0]) % 1000
            place = start + torch.arange(CROP)
            if samples <= CROP:
                place %= samples
            else:
                starts.add(start)
            assert torch.equal(values % 1000, place % 1000)
            lengths.add(samples)
    assert min(lengths) < CROP < max(lengths)
    assert len(starts) > 30


def test_batches_follow_from_seed_and_step_alone(pack):
    first, again, other = _open(pack), _open(pack), _open(pack, seed=6)
    later = [first.batch(step, 4)[0] for step in (7, 3, 7)]
    assert torch.equal(later[0], later[2])
    assert torch.equal(later[1], again.batch(3, 4)[0])
    assert not torch.equal(later[0], later[1])
    assert not torch.equal(later[1], other.batch(3, 4)[0])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_draw_the_batch_of_one_process(pack, world_size):
    data = _open(pack, gain_db=12.0)
    for step in range(3):
        waveforms, bandwidths = data.batch(step, 8)
        parts = [data.batch(step, 8 // world_size, rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([part[0] for part in parts]), waveforms)
        assert torch.equal(torch.cat([part[1] for part in parts]), bandwidths)


def test_held_on_a_device_the_crops_are_the_same(pack):
    mapped = _open(pack, gain_db=12.0)
    held = _open(pack, gain_db=12.0).to("cpu")
    for step in range(10):
        for rank in range(2):
            expected, bandwidths = mapped.batch(step, 8, rank, 2)
            waveforms, held_bandwidths = held.batch(step, 8, rank, 2)
            assert torch.equal(waveforms, expected)
            assert torch.equal(held_bandwidths, bandwidths)


def test_held_data_needs_no_disk(pack, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in pack.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    held = _open(copy).to("cpu")
    for path in copy.glob("*.int16"):
        # The mapping sees what is written to the file.
        path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(held.batch(0, 4)[0], _open(pack).batch(0, 4)[0])


def test_data_that_does_not_fit_is_one_clear_line(pack, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    data = _open(pack)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ConfigError, match="does not fit in the memory of cpu; leave it on disk"):
        data.to("cpu")


def test_gain_makes_crops_quieter_by_up_to_the_given_decibels(pack):
    loud, quiet = _open(pack), _open(pack, gain_db=12.0)
    ratios = []
    for step in range(40):
        a, b = loud.batch(step, 8)[0], quiet.batch(step, 8)[0]
        ratio = b.norm(dim=1) / a.norm(dim=1)
        torch.testing.assert_close(b, a * ratio[:, None])
        ratios.append(20 * ratio.log10())
    decibels = torch.cat(ratios)
    assert decibels.max() <= 1e-3 and decibels.min() >= -12.001
    # Uniform: the mean of 320 has a standard deviation of 0.19 dB.
    assert decibels.mean().item() == pytest.approx(-6, abs=1)
    assert decibels.max() > -0.5 and decibels.min() < -11.5


@pytest.mark.parametrize(("power", "rare"), [(0.0, 1 / 10), (0.5, 1 / 4), (1.0, 1 / 2)])
def test_rare_speakers_count_for_more(power, rare):
    """Speaker a has 1 s, b 9 s: shares 1:9, sqrt(1):sqrt(9) and 1:1; within b, 8:1 by length."""
    sampler = CropSampler(["a", "b", "b"], [1.0, 8.0, 1.0], speaker_power=power, gain_db=0, seed=0)
    draws = np.concatenate([sampler.draw(step, 100).recordings for step in range(60)])
    counts = np.bincount(draws, minlength=3)
    expected = 6000 * np.array([rare, (1 - rare) * 8 / 9, (1 - rare) / 9])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 13.8, "0.1 % for two degrees of freedom"


def test_replacements_differ_from_each_other_and_do_not_depend_on_ranks():
    sampler = CropSampler(["a"] * 1000, [1.0] * 1000, speaker_power=0.0, gain_db=6.0, seed=0)
    picks = [
        sampler.replacement(step, item, attempt).positions[0]
        for step in range(3)
        for item in range(3)
        for attempt in (1, 2)
    ]
    assert len(set(picks)) == len(picks)
    assert sampler.replacement(1, 2, 1).positions[0] == picks[10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 16_000}, "was packed at 8000 Hz, the model wants 16000 Hz"),
        ({"speaker_power": 1.5}, "speaker_power must be 0 to 1"),
        ({"gain_db": -1.0}, "gain_db must be 0 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_values_out_of_range(pack, options, message):
    with pytest.raises(ConfigError, match=message):
        _open(pack, **options)


def test_damaged_packs_are_refused(pack, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no packed speech .*simvq-audio data pack"):
        _open(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged; pack the data again"):
        _open(tmp_path)
    (tmp_path / "index.json").write_text('{"sample_rate": 8000, "recordings": []}')
    with pytest.raises(ConfigError, match="packed by another version"):
        _open(tmp_path)
    (tmp_path / "index.json").write_bytes((pack / "index.json").read_bytes())
    with pytest.raises(ConfigError, match=r"audio-00000\.int16 is missing"):
        _open(tmp_path)
    for shard in pack.glob("*.int16"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    last = sorted(tmp_path.glob("*.int16"))[-1]
    last.write_bytes(last.read_bytes()[:-2])
    with pytest.raises(ConfigError, match="is damaged: "):
        _open(tmp_path)
