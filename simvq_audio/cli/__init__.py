"""The command line program ``simvq-audio``.

``simvq-audio --help`` must answer at once, so every module here imports torch, numpy and
soundfile, and what needs them, inside the functions that use them.
"""

from __future__ import annotations

from simvq_audio.cli.app import app, main

__all__ = ["app", "main"]
