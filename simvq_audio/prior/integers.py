"""Arithmetic that gives the same numbers on every machine.

Arrays hold integers of at most 2**24 in magnitude, as float32. Sums of products are then exact in
float32, in any order, so any matrix product may be used; so are multiplying by a power of two and
rounding down.

After Balle, Johnston and Minnen, "Integer Networks for Data Compression with
Latent-Variable Models" (ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simvq_audio.errors import ModelError

# float32 represents every integer up to here.
EXACT = 2**24
# Inputs of a layer are 0 to 255, or -127 to 127.
MAX_INPUT = 255

FREQUENCY_BITS = 16
TOTAL_FREQUENCY = 1 << FREQUENCY_BITS

# ``select`` copies the weights for each row if there are no more rows than this.
_FEW = 64

MatMul = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Dense:
    """``floor((weight @ x + bias) / 2**shift)`` over the last axis of ``x``.

    Args:
        weight: int8, (..., rows, inputs). Leading axes are tables of layers, for ``select``.
        bias: int32, (..., rows). Half of ``2**shift`` in it turns rounding down into rounding.
        shift: int8, (..., rows), 0 to 23.

    Raises:
        ModelError: a sum could pass 2**24, so that float32 would round it.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray, shift: np.ndarray) -> None:
        largest = np.abs(weight.astype(np.int64)).sum(axis=-1) * MAX_INPUT + np.abs(
            bias.astype(np.int64)
        )
        if largest.max(initial=0) > EXACT or shift.min() < 0 or shift.max() > 23:
            raise ModelError("the sums of a layer could pass 2^24 and would not be exact")
        # Transposed once, into the layout that products of few rows read fastest.
        self._weight = np.ascontiguousarray(np.swapaxes(weight, -1, -2), np.float32)
        self._bias = bias.astype(np.float32)
        self._factor = np.exp2(-shift.astype(np.float32))

    def __call__(self, x: np.ndarray, matmul: MatMul) -> np.ndarray:
        """(..., inputs) -> (..., rows)."""
        y = matmul(x, self._weight)
        y += self._bias
        y *= self._factor
        return np.floor(y, out=y)

    def select(self, index: np.ndarray, x: np.ndarray, matmul: MatMul) -> np.ndarray:
        """Row i of ``x`` (n, inputs) through layer ``index[i]`` of the table -> (n, rows)."""
        if len(index) <= _FEW:
            y = matmul(x[:, np.newaxis], self._weight[index])[:, 0]
        else:
            # A copy of its weights for every row would take much memory.
            y = np.empty((len(index), self._weight.shape[-1]), np.float32)
            order = np.argsort(index, kind="stable")
            layers, firsts = np.unique(index[order], return_index=True)
            for layer, rows in zip(layers, np.split(order, firsts[1:])):
                y[rows] = matmul(x[rows], self._weight[layer])
        y += self._bias[index]
        y *= self._factor[index]
        return np.floor(y, out=y)


def frequencies(logits: np.ndarray, exponentials: np.ndarray) -> np.ndarray:
    """Frequencies, at least 1 each, that sum to 2**16 over the last axis.

    Args:
        logits: integers as float32, (..., n).
        exponentials: int64, decreasing from at most 2**16: the weight of a logit by its distance
            below the largest. Beyond the last, the weight is that of the last.

    Returns:
        int64, (..., n).
    """
    below = logits.max(axis=-1, keepdims=True) - logits
    below = np.minimum(below, len(exponentials) - 1).astype(np.int64)
    result = exponentials[below]
    total = result.sum(axis=-1, keepdims=True)
    result *= TOTAL_FREQUENCY - logits.shape[-1]
    result //= total
    result += 1
    # The remainder of rounding down goes to the first of the most frequent.
    first = below.argmin(axis=-1)[..., np.newaxis]
    rest = TOTAL_FREQUENCY - result.sum(axis=-1, keepdims=True)
    np.put_along_axis(result, first, np.take_along_axis(result, first, -1) + rest, -1)
    return result


def costs(logits: np.ndarray, exponentials: np.ndarray) -> np.ndarray:
    """Bits of coding with ``frequencies``, approximate: enough for an encoder's choices.

    Args:
        logits: as for ``frequencies``.
        exponentials: as for ``frequencies``, as float32.

    Returns:
        float32, (..., n).
    """
    below = logits.max(axis=-1, keepdims=True) - logits
    places = np.minimum(below, len(exponentials) - 1, out=below).astype(np.int32)
    result = exponentials[places]
    result *= (TOTAL_FREQUENCY - logits.shape[-1]) / result.sum(axis=-1, keepdims=True)
    result += 1
    np.log2(result, out=result)
    return np.subtract(FREQUENCY_BITS, result, out=result)
