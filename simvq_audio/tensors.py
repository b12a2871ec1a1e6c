"""Reads safetensors files as NumPy arrays, where neither torch nor safetensors is installed.

The format: 8 bytes, the length of a JSON header, little-endian; the header, which gives type, shape
and place of each tensor; the bytes of the tensors.
"""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.errors import ModelError

_MAX_HEADER = 16 * 2**20
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
}


def read_tensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata of a safetensors file and its tensors, which are read-only.

    Raises:
        ModelError: the file cannot be read, or is not a whole safetensors file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
            raise ValueError("no header")
        entries = json.loads(data[8 : 8 + length])
        metadata = entries.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        return metadata, {name: _tensor(body, entry) for name, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged or not a safetensors file; copy or download it again"
        ) from error


def _tensor(body: memoryview, entry: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(_TYPES[entry["dtype"]])
    shape = tuple(int(size) for size in entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body) or end - start != prod(shape) * dtype.itemsize:
        raise ValueError("a tensor reaches beyond the file")
    return np.frombuffer(body[start:end], dtype).reshape(shape)
