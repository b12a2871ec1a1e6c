"""Files of masked priors: safetensors in float16, with a description in the metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.prior.storage import read_description

if TYPE_CHECKING:
    from simvq_audio.prior.masked.network import MaskedPrior

FORMAT_VERSION = 1
_KEY = "simvq_audio_masked_prior"


@dataclass(frozen=True)
class MaskedHeader:
    """The header of the file of a masked prior; read without loading the tensors.

    Attributes:
        codes_id: of the codes that it predicts.
        shape: the sizes of the network, for ``MaskedShape``.
        file_bytes: size of the file.
        metadata: further entries, such as description and licence.
    """

    codes_id: str
    shape: dict[str, int]
    file_bytes: int
    metadata: dict[str, str]


def save_masked_prior(
    path: str | os.PathLike[str],
    prior: MaskedPrior,
    codes_id: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a masked prior; its weights are rounded to float16.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous() for name, value in prior.state_dict().items()}
    header = {
        "format": FORMAT_VERSION,
        "codes_id": codes_id,
        "shape": dataclasses.asdict(prior.shape),
        **(metadata or {}),
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, for instance
            raise write_error(error, Path(path)) from error


def read_masked_header(path: str | os.PathLike[str]) -> MaskedHeader:
    """Read the header of a masked prior's file.

    Raises:
        ModelError: the file is missing, damaged, or of another kind.
    """
    header, size = read_description(path, _KEY, "masked prior", FORMAT_VERSION)
    try:
        return MaskedHeader(header.pop("codes_id"), dict(header.pop("shape")), size, header)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a masked prior file") from error


def load_masked_prior(path: str | os.PathLike[str]) -> MaskedPrior:
    """Load a masked prior as float32, for inference on the CPU.

    Raises:
        ModelError: the file is missing, damaged, or of another kind.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from simvq_audio.prior.masked.network import MaskedPrior, MaskedShape

    header = read_masked_header(path)
    try:
        shape = MaskedShape(**header.shape)
        # Before a network is allocated: the file holds two bytes for each number.
        if 2 * shape.parameters > header.file_bytes:
            raise ConfigError("a larger network than the file has numbers for")
        tensors = load_file(path)
        with torch.device("meta"):
            prior = MaskedPrior(shape)
        prior.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except (TypeError, RuntimeError, SafetensorError, ConfigError) as error:
        raise ModelError(f"{path} is damaged or of another kind; copy it again") from error
    return prior.eval().requires_grad_(False)
