"""Building a module whose weights come from a file: not larger than it, and nothing drawn.

On the meta device neither would be an issue, but it loads half of torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.hann_window,
}

# Initialisers, and what those consist of that the mode does not see whole.
_INITIALISERS = {
    torch.nn.init.kaiming_uniform_,
    torch.nn.init.uniform_,
    torch.nn.init.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.erfinv_,
    torch.Tensor.mul_,
    torch.Tensor.add_,
    torch.Tensor.clamp_,
}
_DRAWN = {torch.rand, torch.randn}


class AllocationLimitError(Exception):
    """A module would have more numbers than the limit allows."""


@contextmanager
def allocation_limit(numbers: int) -> Iterator[None]:
    """Limit the elements of all tensors made in the block, before they are allocated.

    Counts the calls that layers make parameters with: ``torch.empty``, ``torch.randn`` and others.

    Raises:
        AllocationLimitError: they exceed ``numbers``.
    """
    with _Limit(numbers):
        yield


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave weights as memory has them instead of drawing them at random.

    Half of the time that loading takes went into numbers which the file then replaces.
    """
    with _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in _INITIALISERS:
            tensor = args[0] if args else (kwargs or {})["tensor"]
            if isinstance(tensor, torch.nn.Parameter):
                return tensor
        if function in _DRAWN:
            given = {name: value for name, value in (kwargs or {}).items() if name != "generator"}
            return torch.empty(*args, **given)
        return function(*args, **(kwargs or {}))


class _Limit(TorchFunctionMode):
    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = numbers

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in _FACTORIES:
            size = args[0] if args and isinstance(args[0], (tuple, list)) else args
            self._left -= prod(number for number in size if isinstance(number, int))
            if self._left < 0:
                raise AllocationLimitError
        return function(*args, **(kwargs or {}))
