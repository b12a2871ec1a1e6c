"""Model files: safetensors with the configuration inside, so that one file rebuilds the model.

Format 2 holds every tensor as it is. In format 3 the header lists tensors that the file holds as
``compressed.Steps`` instead; ids and the loaded model are those of the expanded tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.model.compressed import PARTS, Steps, expand_tensors
from simvq_audio.model.config import ModelConfig, without_training_settings
from simvq_audio.model.identity import (
    QUANTIZER_PREFIX,
    codes_id,
    fingerprint_of_format_1,
    model_id,
)

FORMAT_VERSION = 3
_KEY = "simvq_audio"
_COMPRESSED = "compressed"
_MAX_HEADER = 16 * 2**20
# Raised by safetensors files of other programs, and by forged ones.
_FOREIGN = (KeyError, TypeError, AttributeError, ValueError, RecursionError)


@dataclass(frozen=True)
class ModelHeader:
    """The header of a model file; read without loading the weights.

    Attributes:
        config: the model's configuration.
        codes_id: 12 hexadecimal digits that ``.codes`` files name; see ``identity.codes_id``.
        model_id: 12 hexadecimal digits for the whole model; see ``identity.model_id``. In format 1,
            the fingerprint in the file.
        old_codes_ids: other names of the same codes: those of format 1 are the model's fingerprint.
        parameters: numbers in the file, with the frozen codebook basis.
        file_bytes: size of the file.
        metadata: further entries, such as description, licence and source.
    """

    config: ModelConfig
    codes_id: str
    model_id: str
    old_codes_ids: tuple[str, ...]
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
    compressed: Mapping[str, Steps] | None = None,
) -> str:
    """Write a model file; return its ``model_id``.

    Args:
        state_dict: the tensors of ``Autoencoder(config).state_dict()``.
        metadata: text entries to keep (description, licence, source).
        half: store in float16, half the size; computation is in float32.
        compressed: tensors to store in fewer bits, by name; they take the place of those in
            ``state_dict``. The quantiser's must not be among them: they are the ``codes_id``.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state_dict.items()
    }
    compressed = compressed or {}
    tensors |= {name: torch.from_numpy(each.expand()) for name, each in compressed.items()}
    values = config.to_dict()
    header = {
        "format": 3 if compressed else 2,
        **(
            {_COMPRESSED: {name: list(each.shape) for name, each in compressed.items()}}
            if compressed
            else {}
        ),
        "config": values,
        "codes_id": codes_id(config, tensors),
        "model_id": model_id(values, tensors),
        **(metadata or {}),
    }
    for name, each in compressed.items():
        del tensors[name]
        parts = each.to_tensors(name)
        tensors |= {part: torch.from_numpy(array.copy()) for part, array in parts.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, for instance
            raise write_error(error, Path(path)) from error
    return str(header["model_id"])


def read_header(path: str | os.PathLike[str]) -> ModelHeader:
    """Read the header of a model file, without torch and without most of the weights.

    Raises:
        ModelError: the file is missing, damaged, or not a model.
    """
    return _header(Path(path), *_read_table(Path(path)))


def load_model(path: str | os.PathLike[str], device: Any = "cpu") -> tuple[Any, ModelHeader]:
    """Load a model file as (``Autoencoder`` in evaluation mode on ``device``, its header).

    Raises:
        ModelError: the file is missing, damaged, incomplete, or not a model.
    """
    import torch

    entries, written = _read_table(Path(path))
    header = _header(Path(path), entries, written)
    # Tensors made under inference_mode could not be trained, and have no version counter.
    with torch.inference_mode(False):
        return _load(path, header, written, device), header


def _read_table(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors' entries and our metadata from the safetensors header."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(f"{path} is not a model file (safetensors expected)")
            entries = json.loads(file.read(length))
        written = json.loads(entries.pop("__metadata__")[_KEY])
        version, config = written["format"], written["config"]
        if version not in range(1, FORMAT_VERSION + 1):
            raise ModelError(
                f"{path} has model format {version}, this version reads up to {FORMAT_VERSION}; "
                "update simvq-audio"
            )
        if not isinstance(config, dict) or not isinstance(written.get(_COMPRESSED, {}), dict):
            raise _not_ours(path)
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    except ModelError:
        raise
    except _FOREIGN as error:
        raise _not_ours(path) from error
    return entries, written


def _header(path: Path, entries: dict[str, Any], written: dict[str, Any]) -> ModelHeader:
    metadata = dict(written)
    others: tuple[str, ...] = ()
    try:
        old = metadata.pop("format") == 1
        values = metadata.pop("config")
        config = ModelConfig.from_dict(without_training_settings(values))
        shapes = metadata.pop(_COMPRESSED, {})
        parts = {f"{name}.{part}" for name in shapes for part in PARTS}
        kept = [entry["shape"] for name, entry in entries.items() if name not in parts]
        parameters = sum(prod(shape) for shape in [*kept, *shapes.values()])
        if old:
            whole = str(metadata.pop("fingerprint"))
            meaning, others = codes_id(config, _quantizer_tensors(path, entries)), (whole,)
        else:
            meaning = str(metadata.pop("codes_id"))
            whole = str(metadata.pop("model_id"))
    except ConfigError as error:
        raise ModelError(f"the configuration in {path} does not fit: {error}") from error
    except ModelError:
        raise
    except _FOREIGN as error:
        raise _not_ours(path) from error
    return ModelHeader(config, meaning, whole, others, parameters, path.stat().st_size, metadata)


def _quantizer_tensors(path: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """The quantiser's tensors as NumPy arrays, so that torch is not needed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in entries if name.startswith(QUANTIZER_PREFIX)]
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _load(
    path: str | os.PathLike[str], header: ModelHeader, written: dict[str, Any], device: Any
) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from simvq_audio.model.allocation import AllocationLimitError, allocation_limit, undrawn
    from simvq_audio.model.autoencoder import Autoencoder

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if written.get(_COMPRESSED):
        try:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            expanded = expand_tensors(written[_COMPRESSED], arrays)
        except _FOREIGN as error:
            raise _damaged(path, error) from error
        tensors = {name: torch.from_numpy(array) for name, array in expanded.items()}
    whole = fingerprint_of_format_1 if written["format"] == 1 else model_id
    found = whole(written["config"], tensors), codes_id(header.config, tensors)
    if found != (header.model_id, header.codes_id):
        raise _damaged(path, "its weights are not those that it names")
    limit = 2 * header.parameters + 2**20
    try:
        with torch.random.fork_rng(devices=[]), allocation_limit(limit), undrawn():
            model = Autoencoder(header.config)
    except AllocationLimitError as error:
        raise ModelError(
            f"the tensors in {path} do not fit its configuration, which is of a larger model"
        ) from error
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


def _damaged(path: str | os.PathLike[str], reason: object) -> ModelError:
    return ModelError(f"{path} is damaged ({reason}); copy or download it again")


def _not_ours(path: Path) -> ModelError:
    return ModelError(
        f"{path} is not a simvq-audio model; published checkpoints go through "
        "'simvq-audio import-published' first"
    )
