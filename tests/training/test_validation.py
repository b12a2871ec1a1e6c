"""Scores of validation, and the choice of the best model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_runs import Noise, make_trainer, tiny

from simvq_audio.audio import read_audio
from simvq_audio.errors import ConfigError
from simvq_audio.model.storage import read_header
from simvq_audio.training.checkpoint import load_checkpoint
from simvq_audio.training.config import ValidationConfig
from simvq_audio.training.validation import Validation, ValidationSet, judgement, spectrogram_image
from simvq_audio.training.watch import Watch

pytest.importorskip("pesq")
pytest.importorskip("pystoi")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Three recordings of which one is too short, and their manifest."""
    folder = tmp_path_factory.mktemp("dev")
    hello, rate = read_audio(Path(__file__).parents[2] / "examples" / "hello.wav")
    for index, seconds in enumerate((1.6, 0.3, 2.5)):
        soundfile.write(folder / f"{index}.wav", hello[0, : round(seconds * rate)], rate)
    with open(folder / "dev.jsonl", "w") as manifest:
        for index, seconds in enumerate((1.6, 0.3, 2.5)):
            row = {"path": f"{index}.wav", "duration": seconds, "sample_rate": rate, "speaker": "a"}
            manifest.write(json.dumps(row) + "\n")
    return folder


class Parrot(torch.nn.Module):
    """A codec that gives back what it was given, at half the level."""

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.config = tiny(model__quantizer__codebook_size=codebook_size).model
        self.level = torch.nn.Parameter(torch.tensor(0.5))

    def encode(self, waveform):
        self._waveform = waveform
        return torch.tensor([[0, 1, 2, 3]])

    def decode(self, indices):
        return self.level * torch.nn.functional.pad(self._waveform, (0, 7))


def test_hidden_files_are_no_recordings(speech, tmp_path):
    """As archive tools leave them beside recordings, with the suffix of audio."""
    shutil.copytree(speech, tmp_path / "dev")
    (tmp_path / "dev" / "._0.wav").write_bytes(b"no audio")
    (tmp_path / "dev" / ".trash").mkdir()
    (tmp_path / "dev" / ".trash" / "1.wav").write_bytes(b"no audio")
    config = ValidationConfig(recordings=5, max_seconds=2.0)
    found = ValidationSet(tmp_path / "dev", config, 16_000)
    assert [name for name, _ in found.recordings] == ["0.wav", "2.wav"]


@pytest.mark.parametrize("source", ["", "dev.jsonl"])
def test_scores_of_a_known_codec(speech, source):
    config = ValidationConfig(recordings=5, max_seconds=2.0)
    found = ValidationSet(speech / source, config, 16_000)
    assert [len(samples) for _, samples in found.recordings] == [25_600, 32_000]
    result = found.validate(Parrot(16))
    scores = result.scores
    assert scores["pesq_wb"] > 4.5  # PESQ and STOI do not hear levels
    assert scores["stoi"] > 0.999
    # Half the level is log(2) in every band that is not silent.
    assert 0.5 < scores["mel"] <= np.log(2) + 1e-3
    assert scores["utilisation"] == 4 / 16
    assert scores["perplexity"] == pytest.approx(4)
    assert [scores[f"{name}_failed"] for name in ("pesq_wb", "stoi", "estoi")] == [0, 0, 0]
    assert len(result.examples) == 2
    assert np.allclose(result.examples[0].decoded, 0.5 * result.examples[0].original, atol=1e-6)


def test_recordings_are_spread_over_the_set(tmp_path):
    tone = 0.1 * np.sin(np.arange(9000) / 5)
    for index in range(10):
        soundfile.write(tmp_path / f"{index}.wav", tone, 8000)
    found = ValidationSet(tmp_path, ValidationConfig(recordings=4), 8000)
    assert [name for name, _ in found.recordings] == ["0.wav", "2.wav", "5.wav", "7.wav"]


def test_judges_choose_on_their_half_of_the_speakers(speech):
    for package in ("distillmos", "resemblyzer", "librosa"):
        pytest.importorskip(package)
    rows = [json.loads(line) for line in (speech / "dev.jsonl").open()]
    rows[0]["speaker"] = "ls84"  # in the reported half; "p232" is in the choosing one
    rows[2]["speaker"] = "p232"
    manifest = speech / "speakers.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ValidationConfig(recordings=1, half="choose", best_by="judges", max_seconds=2.5)
    found = ValidationSet(manifest, config, 16_000)
    assert [name for name, _ in found.recordings] == ["2.wav"]
    result = found.validate(Parrot(16))
    scores = result.scores
    # Half the level changes neither voice nor pitch, but where Resemblyzer cuts pauses out.
    assert scores["speaker_similarity"] > 0.95
    assert scores["gross_pitch_error"] == 0
    assert scores["voiced_kept"] > 99
    assert scores["judges"] == pytest.approx((scores["distillmos"] - 1) / 16 + 0.75, abs=0.02)
    assert result.better_than(0.7, "judges")


def test_missing_judges_count_as_the_worst():
    perfect = {"distillmos": 5, "speaker_similarity": 1, "gross_pitch_error": 0, "voiced_kept": 100}
    assert judgement(perfect) == 1
    assert judgement({}) == 0
    assert judgement({"speaker_similarity": 1}) == 0.25


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no recording of at least 1 s"):
        ValidationSet(tmp_path, ValidationConfig(), 8000)


def test_better_is_lower_for_mel_and_higher_for_the_others():
    result = Validation({"mel": 0.7, "pesq_wb": 2.0}, [])
    assert result.better_than(None, "mel") and result.better_than(0.8, "mel")
    assert not result.better_than(0.6, "mel")
    assert result.better_than(1.9, "pesq_wb") and not result.better_than(2.1, "pesq_wb")
    assert not result.better_than(None, "stoi")  # nothing could be scored


def test_spectrogram_shows_a_tone_at_its_place():
    tone = torch.sin(2 * torch.pi * 0.125 * torch.arange(8000))  # a quarter of the way up
    image = spectrogram_image(tone)
    assert image.shape[:2] == (1, 513)
    assert 0 <= image.min() and image.max() == 1
    assert image[0, :, 15].argmax() == 512 - 128


def test_the_best_of_a_run_is_kept(speech, tmp_path):
    config = tiny(steps=30, validation__every=10)
    validation = ValidationSet(speech, config.validation, config.model.sample_rate)
    worth = iter([0.9, 0.5, 0.7])
    honest = validation.validate

    def validate(model):
        result = honest(model)
        return Validation({**result.scores, "mel": next(worth)}, result.examples)

    validation.validate = validate
    pytest.importorskip("tensorboard")
    watch = Watch(tmp_path, config.steps, tensorboard=True)
    make_trainer(tmp_path, config, Noise(), validation=validation, watch=watch).run()
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 20
    assert read_header(tmp_path / "best.safetensors").metadata["training"] == "20 steps"
    assert read_header(tmp_path / "model.safetensors").metadata["training"] == "30 steps"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    validated = [row for row in rows if "validation_mel" in row]
    assert [(row["step"], row["validation_mel"]) for row in validated] == [
        (10, 0.9),
        (20, 0.5),
        (30, 0.7),
    ]
    assert {"validation_stoi", "validation_utilisation", "validation_perplexity"} <= {*validated[0]}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"training/mel", "validation/mel", "training/perplexity"} <= {*tags["scalars"]}
    assert {"0.wav/original", "2.wav/decoded"} <= {*tags["audio"]} & {*tags["images"]}
    assert [event.value for event in events.Scalars("validation/mel")] == pytest.approx(
        [0.9, 0.5, 0.7]
    )

    # Resumed, the run still knows the best.
    again = make_trainer(tmp_path, config, Noise())
    again.resume()
    assert again._best == 0.5
