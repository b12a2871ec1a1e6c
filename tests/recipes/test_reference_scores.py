"""The page of reference scores refuses other recordings before it codes any."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).parents[2] / "recipes" / "reference_scores.py"


@pytest.fixture
def recipe(monkeypatch):
    spec = importlib.util.spec_from_file_location("reference_scores", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.Codec, "load", lambda *_, **__: pytest.fail("a model is loaded"))
    return module


@pytest.mark.parametrize(
    ("missing", "extra", "named"), [("b", None, "x/b"), (None, "c", "x/c"), ("a", "d", "x/a, x/d")]
)
def test_other_recordings_are_refused_first(tmp_path, capsys, recipe, missing, extra, named):
    scores = {"pesq": 2.0, "stoi": 0.9, "estoi": 0.8}
    peers = {"systems": {"peer": {"bits_per_second": 1000, "files": {}}}}
    (tmp_path / "x").mkdir()
    for name in filter(None, ("a", "b", extra)):
        if name != extra:
            peers["systems"]["peer"]["files"][f"x__{name}"] = scores
        if name != missing:
            soundfile.write(tmp_path / "x" / f"{name}.wav", np.zeros(1600), 16_000)
    (tmp_path / "peers.json").write_text(json.dumps(peers))
    arguments = [tmp_path, tmp_path / "peers.json", "--out", tmp_path / "page.md"]
    arguments += ["--work", tmp_path / "work"]
    assert recipe.main([str(argument) for argument in arguments]) == 1
    assert capsys.readouterr().err.endswith(f"do not hold the same recordings: {named}\n")
    assert not (tmp_path / "page.md").exists()
