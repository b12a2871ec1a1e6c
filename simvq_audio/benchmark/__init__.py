"""How fast codecs are: this one beside its peers, in turn on the same audio in one run."""

from __future__ import annotations
