from __future__ import annotations

import json
import logging
import tarfile
import threading

import numpy as np
import pytest
import soundfile
import torch

from simvq_audio.audio import read_audio, resample
from simvq_audio.errors import AudioError
from simvq_audio.training.crops import FileCrops
from simvq_audio.training.packed import PackedSpeech, PackWriter
from simvq_audio.training.read_ahead import Prefetched, ordered_map
from simvq_audio.training.sampling import crop_start

RATE = 24_000
CROP = 6000


def _noise(seconds, rate, seed, channels=1):
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.standard_normal((round(seconds * rate), channels))
    return np.round(noise * 32_768) / 32_768


def _manifest(folder, rows, name="m.jsonl"):
    lines = []
    for path, rate, seconds, more in rows:
        row = {"path": path, "duration": seconds, "sample_rate": rate, "speaker": path, **more}
        lines.append(json.dumps(row) + "\n")
    (folder / name).write_text("".join(lines))
    return folder / name


def _files(manifest, *, crop=CROP, gain_db=0.0, seed=1, source=FileCrops):
    return source(
        manifest,
        sample_rate=RATE,
        crop_samples=crop,
        speaker_power=1.0,
        gain_db=gain_db,
        seed=seed,
    )


@pytest.fixture
def formats(tmp_path):
    """One recording each of several formats and rates; the last is shorter than a crop."""
    rows = []
    for seed, (name, rate, channels, seconds) in enumerate(
        [
            ("a.wav", 24_000, 1, 2.0),
            ("b.flac", 16_000, 1, 2.0),
            ("c.wav", 44_100, 2, 2.0),
            ("d.ogg", 22_050, 1, 2.0),
            ("e.mp3", 48_000, 1, 2.0),
            ("f.flac", 11_025, 1, 0.15),
        ]
    ):
        soundfile.write(tmp_path / name, _noise(seconds, rate, seed, channels), rate)
        rows.append((name, rate, seconds, {"bandwidth_hz": 100.0 + seed}))
    return _manifest(tmp_path, rows)


@pytest.mark.parametrize("in_archive", [False, True])
def test_crops_are_those_of_the_whole_recordings(formats, tmp_path, in_archive):
    """Packed with decoding from start to end, the same crops come out."""
    rows = [json.loads(line) for line in formats.read_text().splitlines()]
    manifest = formats
    if in_archive:
        archived = tmp_path / "archived"
        archived.mkdir()
        with tarfile.open(archived / "x.tar", "w") as tar:
            for row in rows:
                # As "tar -C folder ." names members.
                tar.add(tmp_path / row["path"], "./" + row["path"])
        manifest = archived / "m.jsonl"
        lines = [json.dumps({**row, "shard": "x.tar"}) + "\n" for row in rows]
        manifest.write_text("".join(lines))
    (tmp_path / "pack").mkdir()
    with PackWriter(tmp_path / "pack", RATE) as writer:
        for row in rows:
            waveform, rate = read_audio(tmp_path / row["path"])
            mono = resample(waveform.mean(axis=0, keepdims=True), rate, RATE)[0]
            writer.add(row["path"], row["path"], mono, row["bandwidth_hz"])
    packed = _files(tmp_path / "pack", gain_db=6.0, source=PackedSpeech)
    files = _files(manifest, gain_db=6.0)
    seen = set()
    for step in range(12):
        expected, expected_bandwidths = packed.batch(step, 12)
        waveforms, bandwidths = files.batch(step, 12)
        assert waveforms.dtype == torch.float32 and bandwidths.dtype == torch.float32
        assert torch.equal(bandwidths, expected_bandwidths)
        # Rounding to 16 bits, and float32 in the resampler.
        torch.testing.assert_close(waveforms, expected, rtol=0, atol=0.52 / 32_768)
        seen |= set(bandwidths.tolist())
    assert seen == {100.0, 101.0, 102.0, 103.0, 104.0, 105.0}
    assert files.unreadable == {}


@pytest.mark.parametrize(
    ("name", "rate"), [("a.wav", 24_000), ("a.flac", 16_000), ("a.wav", 44_100), ("a.ogg", 48_000)]
)
def test_reads_little_more_than_the_crop(tmp_path, monkeypatch, name, rate):
    soundfile.write(tmp_path / name, _noise(20, rate, 0), rate)
    read = []
    true_read = soundfile.SoundFile.read

    def counting(self, *arguments, **options):
        block = true_read(self, *arguments, **options)
        read.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    data = _files(_manifest(tmp_path, [(name, rate, 20.0, {})]))
    for step in range(10):
        data.batch(step, 2)
    assert len(read) >= 20
    context = 0 if rate == RATE else 2 * 256 * max(1.0, rate / RATE)
    assert sum(read) / 20 <= CROP * rate / RATE + context + 200
    assert sum(read) / 20 >= CROP * rate / RATE, "the monkeypatched method is the one in use"


def test_opus_crops_are_nearly_those_of_the_whole_recording(tmp_path):
    """Opus decoders remember more than libsndfile decodes ahead of a seek's target."""
    time = np.arange(3 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 220 * time * (1 + 0.1 * time))
    soundfile.write(tmp_path / "a.opus", tone, RATE, format="OGG", subtype="OPUS")
    whole = read_audio(tmp_path / "a.opus")[0][0]
    data = _files(_manifest(tmp_path, [("a.opus", RATE, 3.0, {})]))
    draw = data._sampler.draw(0, 8)
    for crop, position in zip(data.batch(0, 8)[0].numpy(), draw.positions):
        start = int(crop_start(position, len(whole), CROP))
        np.testing.assert_allclose(crop, whole[start : start + CROP], atol=0.01)


def test_damaged_recordings_are_replaced_alike_for_all_ranks(tmp_path, caplog):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.flac", _noise(1, RATE, number), RATE)
    (tmp_path / "bad.flac").write_bytes(b"no audio")
    cut = (tmp_path / "3.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(cut[: len(cut) // 3])
    rows = [(f"{n}.flac", RATE, 1.0, {"bandwidth_hz": 1000.0 + n}) for n in range(4)]
    rows += [(name, RATE, 1.0, {}) for name in ("bad.flac", "cut.flac", "none.flac")]
    manifest = _manifest(tmp_path, rows)
    data = _files(manifest)
    with caplog.at_level(logging.WARNING):
        batches = [data.batch(step, 8) for step in range(10)]
    assert {path.rsplit("/", 1)[1] for path in data.unreadable} == {
        "bad.flac",
        "cut.flac",
        "none.flac",
    }
    assert len(caplog.records) == 3, "each is reported once"
    for step, (waveforms, bandwidths) in enumerate(batches):
        assert torch.isfinite(waveforms).all() and (waveforms.std(dim=1) > 0.05).all()
        parts = [_files(manifest).batch(step, 4, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([part[0] for part in parts]), waveforms)
        assert torch.equal(torch.cat([part[1] for part in parts]), bandwidths)


def test_recordings_that_are_all_gone_end_the_run(tmp_path):
    data = _files(_manifest(tmp_path, [("a.wav", RATE, 1.0, {})]))
    with pytest.raises(
        AudioError, match=r"20 recordings in a row cannot be read; the last: .*a\.wav"
    ):
        data.batch(0, 1)


@pytest.mark.parametrize("content", [None, b"x" * 2000])
def test_archive_that_is_missing_or_none_is_one_line(tmp_path, content):
    if content:
        (tmp_path / "x.tar").write_bytes(content)
    manifest = _manifest(tmp_path, [("a.wav", RATE, 1.0, {"shard": "x.tar"})])
    with pytest.raises(AudioError, match=r"x\.tar: ") as error:
        _files(manifest)
    assert "\n" not in str(error.value)


def test_prefetched_batches_are_the_same_in_any_order(formats):
    plain = _files(formats)
    with Prefetched(_files(formats), threads=2, ahead=3) as ahead:
        for step in (0, 1, 2, 9, 10, 1, 1):
            expected, waveforms = plain.batch(step, 4, 1, 2), ahead.batch(step, 4, 1, 2)
            assert torch.equal(waveforms[0], expected[0])
            assert torch.equal(waveforms[1], expected[1])


def test_prefetched_works_ahead_and_hands_errors_on():
    asked, ready = [], threading.Event()

    class Source:
        def batch(self, step, size, rank=0, world_size=1):
            asked.append(step)
            if step == 3:
                ready.set()
            if step == 4:
                raise AudioError("step 4")
            return torch.zeros(size, 1), torch.zeros(size)

    with Prefetched(Source(), threads=1, ahead=3) as ahead:
        ahead.batch(0, 1)
        assert ready.wait(10), "step 3 is prepared though nobody asked for it"
        for step in (1, 2, 3):
            ahead.batch(step, 1)
        with pytest.raises(AudioError, match="step 4"):
            ahead.batch(4, 1)
    assert asked[:5] == [0, 1, 2, 3, 4], "each once"


def test_ordered_map_keeps_order_and_does_not_run_away():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = ordered_map(lambda number: number * number, items(), threads=2)
    assert next(results) == 0
    assert len(taken) < 20, "results are large: few are held"
    assert list(results) == [number * number for number in range(1, 100)]
