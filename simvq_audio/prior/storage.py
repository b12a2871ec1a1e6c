"""Prior files: safetensors of integers, with a description in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ModelError
from simvq_audio.prior.causal import CausalPrior
from simvq_audio.tensors import read_tensors

FORMAT_VERSION = 1
_KEY = "simvq_audio_prior"
_MAX_HEADER = 2**20


@dataclass(frozen=True)
class PriorHeader:
    """The header of a prior file; read without loading the tensors.

    Attributes:
        prior_id: 8 hexadecimal digits that name the prior in ``.codes`` files.
        codes_id: of the codes that it predicts.
        dilations: of the network's layers.
        file_bytes: size of the file.
        metadata: further entries, such as description and licence.
    """

    prior_id: str
    codes_id: str
    dilations: tuple[int, ...]
    file_bytes: int
    metadata: dict[str, str]


def save_prior(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    codes_id: str,
    dilations: tuple[int, ...],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write a prior file; return its id.

    Args:
        tensors: integers. ``embedding`` (codes + 1, e), the last row for the frame before the
            first code; ``weight``, ``bias`` and ``shift`` (see ``Dense``) of ``first``,
            ``layers.0`` ..., ``clusters``, ``query`` and ``members``; ``tree`` (clusters, members),
            the codes of each cluster; ``exponentials`` (see ``frequencies``).
        codes_id: of the codes that it predicts.
        dilations: one per layer.

    Raises:
        ModelError: the tensors do not make an exact prior.
        OSError: the file cannot be written; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    CausalPrior(tensors, dilations)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    prior_id = _fingerprint(tensors, dilations)
    header = {
        "format": FORMAT_VERSION,
        "prior_id": prior_id,
        "codes_id": codes_id,
        "dilations": list(dilations),
        **(metadata or {}),
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, for instance
            raise write_error(error, Path(path)) from error
    return prior_id


def read_prior_header(path: str | os.PathLike[str]) -> PriorHeader:
    """Read the header of a prior file.

    Raises:
        ModelError: the file is missing, damaged, or not a prior.
    """
    header, size = read_description(path, _KEY, "prior", FORMAT_VERSION)
    try:
        dilations = tuple(int(step) for step in header.pop("dilations"))
        return PriorHeader(header.pop("prior_id"), header.pop("codes_id"), dilations, size, header)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a prior file") from error


def read_description(
    path: str | os.PathLike[str], key: str, kind: str, version: int
) -> tuple[dict[str, Any], int]:
    """The description in a safetensors file's metadata, without its format, and the file size.

    Args:
        key: of the metadata, where the description is JSON.
        kind: of file, for messages.
        version: the format that is read.

    Raises:
        ModelError: the file is missing, damaged, of another kind or of another format.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(f"{path} is not a {kind} file (safetensors expected)")
            header: dict[str, Any] = json.loads(json.loads(file.read(length))["__metadata__"][key])
        found = header.pop("format")
    except OSError as error:
        raise ModelError(f"cannot read the {kind} {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not a {kind} file") from error
    if found != version:
        raise ModelError(
            f"{path} has {kind} format {found}, this version reads {version}; update simvq-audio"
        )
    return header, size


def load_prior(path: str | os.PathLike[str]) -> CausalPrior:
    """Load a prior file.

    Raises:
        ModelError: the file is missing, damaged, or not a prior.
    """
    header = read_prior_header(path)
    # With NumPy only, so that .codes files can be read without torch.
    _, tensors = read_tensors(path)
    if _fingerprint(tensors, header.dilations) != header.prior_id:
        raise ModelError(f"{path} is damaged (fingerprint mismatch); install simvq-audio again")
    return CausalPrior(tensors, header.dilations, prior_id=header.prior_id)


def _fingerprint(tensors: Mapping[str, np.ndarray], dilations: tuple[int, ...]) -> str:
    """32 bits of SHA-256 over the dilations and every tensor, little-endian."""
    digest = hashlib.sha256(json.dumps(list(dilations)).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {tensor.dtype.name} {list(tensor.shape)}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()[:8]
