"""Checkpoints are written whole, and old ones are removed."""

from __future__ import annotations

import errno
import resource

import pytest
import torch
from tiny_runs import make_trainer, tiny

from simvq_audio.errors import ModelError
from simvq_audio.training.checkpoint import (
    checkpoint_path,
    find_checkpoint,
    halved,
    keep_as_best,
    load_checkpoint,
    remove_old,
    save_checkpoint,
)


def test_what_is_saved_comes_back(tmp_path):
    state = {"step": 3, "nested": {"tensor": torch.arange(4.0)}, "best": None}
    save_checkpoint(tmp_path / "new" / "state.pt", state)
    loaded = load_checkpoint(tmp_path / "new" / "state.pt")
    assert torch.equal(loaded["nested"].pop("tensor"), state["nested"].pop("tensor"))
    assert loaded == state


def test_damage_is_one_clear_line(tmp_path):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"tensor": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    for bad in (path, tmp_path / "missing.pt"):
        with pytest.raises(ModelError) as caught:
            load_checkpoint(bad)
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_newest_are_kept_and_the_best(tmp_path):
    for step in (90, 100, 1000, 1010):
        save_checkpoint(checkpoint_path(tmp_path, step), {"step": step})
        if step == 100:
            keep_as_best(checkpoint_path(tmp_path, step))
        remove_old(tmp_path, 2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pt", "step_00001000.pt", "step_00001010.pt"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 100
    assert find_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1010)
    assert find_checkpoint(tmp_path / "elsewhere") is None


def test_halving_leaves_whole_numbers_alone():
    state = halved({"a": {"w": torch.ones(2)}, "n": torch.arange(2), "step": 5})
    assert state["a"]["w"].dtype == torch.float16
    assert state["n"].dtype == torch.int64
    assert state["step"] == 5


@pytest.fixture
def small_disk():
    """Files may not grow beyond 50 kB: writes fail half way, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))

    yield set_limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_failed_write_leaves_the_earlier_file(tmp_path, small_disk):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 1})
    small_disk()
    with pytest.raises(OSError) as caught:
        save_checkpoint(path, {"tensor": torch.zeros(100_000), "step": 2})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
def test_a_run_on_a_full_disk_ends_with_an_os_error(tmp_path, monkeypatch, small_disk, writer):
    trainer = make_trainer(tmp_path, tiny())
    trainer.run(max_steps=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    if writer == "safetensors":
        monkeypatch.setattr("simvq_audio.training.trainer.save_checkpoint", lambda *_: None)
    small_disk()
    with pytest.raises(OSError) as caught:
        trainer.run(max_steps=1)
    assert caught.value.errno == errno.EFBIG
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
