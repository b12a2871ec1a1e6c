"""Writes ONNX files: the part of the format that our graphs need, without a further package.

The message and field numbers are those of ``onnx.proto`` (https://github.com/onnx/onnx), which
never change. Building graphs here, instead of having them traced, is what lets
``simvq_audio.onnx`` turn a model file into graphs where torch is not installed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

# The oldest operator set with LayerNormalization, and the file format that belongs to it.
OPSET = 17
_IR_VERSION = 8

# TensorProto.DataType.
_TYPES = {
    np.dtype(np.float32): 1,
    np.dtype(np.int64): 7,
    np.dtype(np.float16): 10,
    np.dtype(np.float64): 11,
}
# AttributeProto.AttributeType, and the field that holds such a value.
_FLOAT, _INT, _INTS = (1, 2), (2, 3), (7, 8)

Attribute = float | int | Sequence[int]
# Integers are fixed sizes; names are sizes known at run time.
Shape = Sequence[int | str]


class Graph:
    """A graph under construction: values are named by strings, operators are called.

    >>> graph = Graph("double")
    >>> x = graph.input("x", np.float32, ["samples"])
    >>> graph.output("y", graph("Add", x, x), np.float32, ["samples"])
    >>> data = graph.to_bytes()
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._tensors: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._initializers: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def __call__(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an operator with one output; return the output's name."""
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(
        self, operator: str, count: int, *inputs: str, **attributes: Attribute
    ) -> list[str]:
        """Add an operator with ``count`` outputs; return their names."""
        outputs = [self._next(operator.lower()) for _ in range(count)]
        self._add(operator, inputs, outputs, attributes)
        return outputs

    def constant(self, array: np.ndarray | float | int | Sequence[int]) -> str:
        """A tensor that is part of the file; numbers of Python become float32 or int64."""
        value = np.asarray(array)
        if not isinstance(array, (np.ndarray, np.generic)):
            value = value.astype(np.float32 if value.dtype.kind == "f" else np.int64)
        data = value.astype(value.dtype.newbyteorder("<"), order="C").tobytes()
        key = (value.dtype.name, data, value.shape)
        if key not in self._tensors:
            self._tensors[key] = name = self._next("constant")
            self._initializers.append(
                b"".join(_integer(1, size) for size in value.shape)
                + _integer(2, _TYPES[value.dtype])
                + _text(8, name)
                + _field(9, data)
            )
        return self._tensors[key]

    def weight(self, array: np.ndarray) -> str:
        """A float32 tensor, kept in half the bytes where float16 holds its values exactly.

        Runtimes compute the conversion once, when they load the file.
        """
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.size > 16 and np.array_equal(half.astype(np.float32), array):
            return self.cast(self.constant(half), np.float32)
        return self.constant(array.astype(np.float32))

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """``value`` as another type."""
        return self("Cast", value, to=_TYPES[np.dtype(dtype)])

    def size(self, value: str, axis: int) -> str:
        """The size of an axis, as an int64 tensor of one element."""
        return self("Shape", value, start=axis, end=axis + 1)

    def slice(self, value: str, axis: int, start: int | str, end: int | str, step: int = 1) -> str:
        """``value[start:end:step]`` along an axis; names stand for tensors of one element."""
        ends = [at if isinstance(at, str) else self.constant([at]) for at in (start, end)]
        return self("Slice", value, *ends, self.constant([axis]), self.constant([step]))

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare an input; return its name."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: type[np.generic], shape: Shape) -> None:
        """Declare ``value`` an output under a name of its own."""
        self._add("Identity", [value], [name], {})
        self._outputs.append(_value_info(name, dtype, shape))

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The content of an ONNX file.

        Args:
            metadata: text entries that runtimes show.
        """
        graph = (
            b"".join(_field(1, node) for node in self._nodes)
            + _text(2, self._name)
            + b"".join(_field(5, tensor) for tensor in self._initializers)
            + b"".join(_field(11, value) for value in self._inputs)
            + b"".join(_field(12, value) for value in self._outputs)
        )
        return (
            _integer(1, _IR_VERSION)
            + _text(2, "simvq-audio")
            + _field(7, graph)
            + _field(8, _integer(2, OPSET))
            + b"".join(
                _field(14, _text(1, key) + _text(2, value))
                for key, value in (metadata or {}).items()
            )
        )

    def _next(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def _add(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        self._nodes.append(
            b"".join(_text(1, name) for name in inputs)
            + b"".join(_text(2, name) for name in outputs)
            + _text(4, operator)
            + b"".join(_field(5, _attribute(*item)) for item in attributes.items())
        )


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers take ten bytes
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        kind, number = _FLOAT
        held = _varint(number << 3 | 5) + struct.pack("<f", value)
    elif isinstance(value, int):
        kind, number = _INT
        held = _integer(number, value)
    else:
        kind, number = _INTS
        held = b"".join(_integer(number, item) for item in value)
    return _text(1, name) + held + _integer(20, kind)


def _value_info(name: str, dtype: type[np.generic], shape: Shape) -> bytes:
    dims = b"".join(
        _field(1, _text(2, size) if isinstance(size, str) else _integer(1, size)) for size in shape
    )
    tensor = _integer(1, _TYPES[np.dtype(dtype)]) + _field(2, dims)
    return _text(1, name) + _field(2, _field(1, tensor))
