"""Whole corpora as codes, for language models: ``simvq-audio tokenize`` and ``Tokenizer``."""

from __future__ import annotations

from simvq_audio.corpora.corpus import Corpus, CorpusError
from simvq_audio.corpora.readers import open_corpus
from simvq_audio.corpora.run import Summary, TokenizeRun, Worker
from simvq_audio.corpora.tokenizer import Tokenizer

__all__ = ["Corpus", "CorpusError", "Summary", "TokenizeRun", "Tokenizer", "Worker", "open_corpus"]
