"""Corpora of short recordings, and runs on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora_runs import make_recordings

from simvq_audio.corpora import TokenizeRun, open_corpus


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder of 40 recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    make_recordings(folder, 40)
    return folder


@pytest.fixture
def tokenized(codec):
    """Tokenise into a folder, in this process."""

    def run(source: Path | str, out: Path, shard_size: int = 7, root=None, **options):
        corpus = open_corpus(str(source), shard_size, root)
        made = TokenizeRun(codec, corpus, out, shard_size=shard_size, **options)
        made.run()
        return made

    return run
