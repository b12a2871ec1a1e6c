"""Weights in few bits: whole numbers times steps, entropy-coded (model files of format 3).

A weight (out, in) is ``numbers * step``, where the step of an entry is a power of two in quarters
of an octave: 2 ** ((rows[out] + columns[in]) / 4). Entries with similar steps are coded together,
since their numbers are of similar size. The expansion is exact: the same float32 everywhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

UNITS_PER_OCTAVE = 4
# 2 ** (0/4) to 2 ** (3/4) in float32, written down because libraries differ in their last bit.
_QUARTERS = np.array([1.0, 1.1892071, 1.4142135, 1.6817929], np.float32)
# Steps within half an octave are coded together.
_UNITS_PER_GROUP = 2
# Of a group: bits of a number that are stored as they are, and bytes of the deflated rest.
_GROUP = struct.Struct("<BI")
# Zero bytes fill up what is smaller, so that no file can make a reader allocate much more than its
# size.
_NUMBERS_PER_BYTE = 16
PARTS = ("numbers", "rows", "columns")


@dataclass(frozen=True)
class Steps:
    """A weight as whole numbers.

    Attributes:
        numbers: (out, in) int32; further axes of the weight are flattened into the last.
        rows, columns: int16, whose sum says the step.
        shape: of the weight.
    """

    numbers: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, ...]

    @staticmethod
    def step_sizes(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(out, in) float32."""
        units = _units(rows, columns)
        return np.ldexp(_QUARTERS[units % UNITS_PER_OCTAVE], units // UNITS_PER_OCTAVE)

    def expand(self) -> np.ndarray:
        """The weight, float32."""
        steps = self.step_sizes(self.rows, self.columns)
        return (self.numbers.astype(np.float32) * steps).reshape(self.shape)

    def to_tensors(self, name: str) -> dict[str, np.ndarray]:
        """What a file holds in the place of the tensor ``name``."""
        unsigned = ((self.numbers << 1) ^ (self.numbers >> 31)).astype(np.uint32)
        groups = _units(self.rows, self.columns) // _UNITS_PER_GROUP
        coded = b"".join(_pack(unsigned[groups == group]) for group in np.unique(groups))
        coded = coded.ljust(-(-self.numbers.size // _NUMBERS_PER_BYTE), b"\0")
        parts = (np.frombuffer(coded, np.uint8), self.rows, self.columns)
        return {f"{name}.{part}": array for part, array in zip(PARTS, parts)}

    @classmethod
    def from_tensors(
        cls, name: str, tensors: Mapping[str, np.ndarray], shape: tuple[int, ...]
    ) -> Steps:
        """The reverse of ``to_tensors``.

        Raises:
            ValueError, KeyError: the tensors are not what it wrote.
        """
        coded, rows, columns = (tensors[f"{name}.{part}"] for part in PARTS)
        if (coded.dtype, rows.dtype, columns.dtype) != (np.uint8, np.int16, np.int16):
            raise ValueError("tensors of another type")
        size = rows.size * columns.size
        if not coded.ndim == rows.ndim == columns.ndim == 1 or not shape or min(shape) < 1:
            raise ValueError("tensors of another shape")
        if prod(shape) != size or shape[0] != len(rows):
            raise ValueError("tensors of another shape")
        if size > _NUMBERS_PER_BYTE * coded.size:
            raise ValueError("fewer bytes than the numbers need")
        groups = _units(rows, columns) // _UNITS_PER_GROUP
        unsigned = np.empty(groups.shape, np.uint32)
        rest = coded.tobytes()
        for group in np.unique(groups):
            place = groups == group
            unsigned[place], rest = _unpack(rest, int(place.sum()))
        if any(rest):
            raise ValueError("more bytes than numbers")
        numbers = (unsigned >> 1).astype(np.int32) ^ -(unsigned & 1).astype(np.int32)
        return cls(numbers, rows, columns, shape)


def expand_tensors(
    shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All tensors of a model, of which the file holds some as ``Steps``.

    Args:
        shapes: of those, by name, from the file's header.
        tensors: of the file.

    Raises:
        ValueError, KeyError, TypeError: they are not what ``Steps.to_tensors`` wrote.
    """
    found = dict(tensors)
    for name, shape in shapes.items():
        sizes = tuple(int(size) for size in shape)
        found[name] = Steps.from_tensors(name, found, sizes).expand()
        for part in PARTS:
            del found[f"{name}.{part}"]
    return found


def _units(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows.astype(np.int32)[:, None] + columns.astype(np.int32)


def _pack(numbers: np.ndarray) -> bytes:
    """A group: the low bits, which have no pattern, as they are, the others deflated."""
    low = max(0, int(np.log2(numbers.mean() + 1)) - 3)
    while int(numbers.max()) >> low > 255:
        low += 1
    high = (numbers >> low).astype(np.uint8).tobytes()
    deflated = min((_deflate(high, strategy) for strategy in _STRATEGIES), key=len)
    bits = (numbers[:, None] >> np.arange(low, dtype=np.uint32)) & 1
    plain = np.packbits(bits.astype(np.uint8)).tobytes()
    return _GROUP.pack(low, len(deflated)) + deflated + plain


def _unpack(data: bytes, count: int) -> tuple[np.ndarray, bytes]:
    """The numbers of a group, and the bytes after it."""
    if len(data) < _GROUP.size:
        raise ValueError("a group is missing")
    low, size = _GROUP.unpack_from(data)
    if low > 24:
        raise ValueError("numbers of too many bits")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        high = inflater.decompress(data[_GROUP.size : _GROUP.size + size], count)
    except zlib.error as error:
        raise ValueError("a group is damaged") from error
    end = _GROUP.size + size + (count * low + 7) // 8
    if len(high) != count or len(data) < end:
        raise ValueError("a group is shorter than its numbers")
    plain = np.frombuffer(data[_GROUP.size + size : end], np.uint8)
    bits = np.unpackbits(plain, count=count * low).reshape(count, low)
    numbers = np.frombuffer(high, np.uint8).astype(np.uint32) << low
    return numbers + (bits.astype(np.uint32) << np.arange(low, dtype=np.uint32)).sum(
        axis=1, dtype=np.uint32
    ), data[end:]


def _deflate(data: bytes, strategy: int) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
    return deflater.compress(data) + deflater.flush()


_STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)
