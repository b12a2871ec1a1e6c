"""Names of codes and models: short hashes.

``codes_id``, named in ``.codes`` files, covers what gives an index its meaning: models that share
it decode each other's codes. ``model_id`` covers everything that rebuilds the model, and records
which weights made a result.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simvq_audio.model.config import ModelConfig

QUANTIZER_PREFIX = "quantizer."


def codes_id(config: ModelConfig, tensors: Mapping[str, Any]) -> str:
    """12 hexadecimal digits for the meaning of an index.

    The quantiser's stored tensors are hashed, since a product such as SimVQ's W(C) is rounded
    differently on different machines.

    Args:
        tensors: NumPy arrays or CPU tensors by name; those of the quantiser are hashed, in
            any precision that represents their values.
    """
    layout = {
        "sample_rate": config.sample_rate,
        "hop_length": config.hop_length,
        "kind": config.quantizer.kind,
        "codebook_sizes": list(config.quantizer.codebook_sizes),
    }
    quantizer = {n: value for n, value in tensors.items() if n.startswith(QUANTIZER_PREFIX)}
    return _digest(layout, quantizer)


def model_id(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """12 hexadecimal digits for a whole model.

    Args:
        config: ``ModelConfig.to_dict()``; the name is not hashed.
        tensors: all of the model's, as for ``codes_id``.
    """
    values = copy.deepcopy(dict(config))
    values.pop("name", None)
    values.get("decoder", {}).pop("overlap_frames", None)
    return _digest(values, tensors)


def fingerprint_of_format_1(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """The name in files of format 1, instead of both: a hash of all tensors and settings.

    Args:
        config: as stored in the file.
    """
    return _digest({name: value for name, value in config.items() if name != "name"}, tensors)


def _digest(values: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """48 bits of SHA-256 over plain values and every tensor as little-endian float32."""
    import numpy as np

    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{list(tensor.shape)}".encode())
        if hasattr(tensor, "detach"):  # torch converts from float16 several times as fast
            tensor = tensor.detach().float().numpy()
        digest.update(np.ascontiguousarray(tensor, dtype="<f4").data)
    return digest.hexdigest()[:12]
