"""Training state on disk: written whole, read without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ModelError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and nested lists or tables of them.

    Raises:
        OSError: the file cannot be written; an earlier one is left as it was.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ModelError(f"{path} is not a training checkpoint, or is damaged") from error
