"""Training state on disk: written whole, read without running code.

``RUN/checkpoints/step_00001000.pt`` has everything needed to continue as if the run had not
stopped; ``RUN/checkpoints/best.pt`` has the best validation; ``RUN/carry.pt`` is small, for moving
a
run to another machine: weights in half precision, no optimiser moments.
"""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ModelError

_FOLDER = "checkpoints"
CARRY = "carry.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and nested lists or tables of them.

    Raises:
        OSError: the file cannot be written; an earlier one stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise write_error(error, path) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, onto the CPU.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ModelError(f"{path} is not a training checkpoint, or is damaged") from error


def checkpoint_path(run: Path, step: int) -> Path:
    """The path of the checkpoint after ``step`` steps."""
    return run / _FOLDER / f"step_{step:08}.pt"


def find_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, else its ``carry.pt``, else None."""
    numbered = _numbered(run)
    if numbered:
        return numbered[-1]
    carry = run / CARRY
    return carry if carry.is_file() else None


def remove_old(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` numbered checkpoints."""
    for path in _numbered(run)[:-keep]:
        path.unlink()


def keep_as_best(path: Path) -> None:
    """Make ``path``, just written, the checkpoint ``best.pt`` beside it."""
    with atomic_path(path.with_name("best.pt")) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)  # a link, and so no second copy
        except OSError:
            shutil.copyfile(path, temporary)


def halved(value: Any) -> Any:
    """The same nested tables with every float32 tensor in float16."""
    if isinstance(value, dict):
        return {key: halved(item) for key, item in value.items()}
    if isinstance(value, Tensor) and value.dtype == torch.float32:
        return value.half()
    return value


def _numbered(run: Path) -> list[Path]:
    return sorted((run / _FOLDER).glob("step_*.pt"))
