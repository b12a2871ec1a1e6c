"""``python -m simvq_audio`` is the command ``simvq-audio``."""

from __future__ import annotations

from simvq_audio.cli import main

if __name__ == "__main__":
    main()
