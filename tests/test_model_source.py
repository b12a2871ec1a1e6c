"""Where --model looks: embedded names, files, folders, and the hub for nothing that is a path."""

from __future__ import annotations

import pytest

from simvq_audio.codec import model_source
from simvq_audio.codec.model_source import locate_model
from simvq_audio.embedded import embedded_model
from simvq_audio.errors import ModelError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, and a hub that must not be asked unless a test says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_source, "_download", lambda name: pytest.fail(f"asked for {name}"))
    return tmp_path


@pytest.mark.parametrize("name", ["compact", "compact-1"])
def test_a_folder_of_a_models_name_does_not_hide_it(here, name):
    (here / name).mkdir()
    assert locate_model(name) == embedded_model().path
    (here / name / "model.safetensors").touch()
    assert locate_model(f"./{name}") == here.relative_to(here) / name / "model.safetensors"


def test_a_mistyped_path_is_not_asked_for_on_the_network(here):
    (here / "runs").mkdir()
    with pytest.raises(ModelError, match="there is no model file runs/typo"):
        locate_model("runs/typo")
    with pytest.raises(ModelError, match="no model file"):
        locate_model("somewhere/model.safetensors")


def test_what_is_no_path_here_is_a_repository(here, monkeypatch):
    monkeypatch.setattr(model_source, "_download", lambda name: here / name)
    assert locate_model("someone/some-codec") == here / "someone/some-codec"


def test_a_folder_without_a_model_says_so(here):
    (here / "empty").mkdir()
    with pytest.raises(ModelError, match=r"the folder empty holds no model\.safetensors"):
        locate_model("empty")
