"""Speed of this codec and its peers, measured in turn on the same audio in one run."""

from __future__ import annotations
