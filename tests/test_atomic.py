"""Files that appear whole or not at all, with the mode that any new file has."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from simvq_audio.atomic import atomic_path


@pytest.mark.skipif(sys.platform == "win32", reason="no modes of this kind")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_the_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "a.codes") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.codes").stat().st_mode) == 0o666 & ~mask


def test_the_umask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changes all threads' files"))
    with atomic_path(tmp_path / "a.codes") as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / "a.codes").read_bytes() == b"x"


def test_the_longest_names_can_be_written(tmp_path):
    target = tmp_path / ("a" * 249 + ".codes")
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".codes"
        temporary.write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.codes"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
