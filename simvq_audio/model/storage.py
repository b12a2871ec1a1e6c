"""Model files: safetensors with the configuration inside, so that one file rebuilds the model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.model.config import ModelConfig

FORMAT_VERSION = 1
_KEY = "simvq_audio"
_MAX_HEADER = 16 * 2**20


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says about itself; read without loading the weights.

    Attributes:
        config: the model's configuration.
        fingerprint: 12 hexadecimal digits, the same for equal weights in any precision that holds
            them; ``.codes`` files name it.
        parameters: numbers in the file, the frozen codebook basis included.
        file_bytes: size of the file.
        metadata: further entries, such as description, licence and source.
    """

    config: ModelConfig
    fingerprint: str
    parameters: int
    file_bytes: int
    metadata: dict[str, str]


def save_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    state_dict: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> str:
    """Write a model file; return its fingerprint.

    Args:
        state_dict: the tensors of ``Autoencoder(config).state_dict()``.
        metadata: text entries to keep (description, licence, source).
        half: store in float16: half the size; computation stays in float32.

    Raises:
        OSError: the file cannot be written; nothing is left behind then.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state_dict.items()
    }
    fingerprint = _fingerprint(config, tensors)
    header = {
        "format": FORMAT_VERSION,
        "config": config.to_dict(),
        "fingerprint": fingerprint,
        **(metadata or {}),
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, for instance
            raise write_error(error, Path(path)) from error
    return fingerprint


def read_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read what a model file says about itself; needs neither torch nor the weights.

    Raises:
        ModelError: the file is missing, damaged, or not a model of ours.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(f"{path} is not a model file (safetensors expected)")
            table = json.loads(file.read(length))
        header = json.loads(table.pop("__metadata__")[_KEY])
        parameters = sum(_numel(entry["shape"]) for entry in table.values())
        version = header.pop("format")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path} has model format {version}, this version reads {FORMAT_VERSION}; "
                "update simvq-audio"
            )
        config = ModelConfig.from_dict(header.pop("config"))
        fingerprint = str(header.pop("fingerprint"))
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    except ConfigError as error:
        raise ModelError(f"the configuration in {path} does not fit: {error}") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} is not a simvq-audio model; published checkpoints go through "
            "'simvq-audio import-published' first"
        ) from error
    return ModelHeader(config, fingerprint, parameters, size, header)


def load_model(path: str | os.PathLike[str], device: Any = "cpu") -> tuple[Any, ModelHeader]:
    """Load a model file as (``Autoencoder`` in evaluation mode on ``device``, its header).

    Raises:
        ModelError: the file is missing, damaged, incomplete, or not a model of ours.
    """
    import torch

    header = read_header(path)
    # Tensors made under inference_mode could never be trained, nor their changes noticed.
    with torch.inference_mode(False):
        return _load(path, header, device), header


def _load(path: str | os.PathLike[str], header: ModelHeader, device: Any) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from simvq_audio.model.autoencoder import Autoencoder

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy or download it again") from error
    if _fingerprint(header.config, tensors) != header.fingerprint:
        raise ModelError(f"{path} is damaged (fingerprint mismatch); copy or download it again")
    # Not on the meta device, although that would save the initialisation: it loads half of torch.
    with torch.random.fork_rng(devices=[]):
        model = Autoencoder(header.config)
    _check_tensors(path, {k: tuple(v.shape) for k, v in model.state_dict().items()}, tensors)
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False)


def _check_tensors(
    path: str | os.PathLike[str], expected: dict[str, tuple[int, ...]], tensors: Mapping[str, Any]
) -> None:
    missing = sorted(set(expected) - set(tensors))
    unexpected = sorted(set(tensors) - set(expected))
    misshapen = sorted(
        name
        for name in set(expected) & set(tensors)
        if tuple(tensors[name].shape) != expected[name]
    )
    faults = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise ModelError(f"the tensors in {path} do not fit its configuration; {'; '.join(faults)}")


def _fingerprint(config: ModelConfig, tensors: Mapping[str, Any]) -> str:
    """48 bits of SHA-256 over the configuration (but its name) and every tensor as float32."""
    values = config.to_dict()
    del values["name"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.float().numpy().data)
    return digest.hexdigest()[:12]


def _numel(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
