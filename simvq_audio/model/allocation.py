"""A limit on how large a module may become while it is built from a configuration of strangers."""

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


class AllocationLimitError(Exception):
    """More numbers were asked for than the limit allows."""


@contextmanager
def allocation_limit(numbers: int) -> Iterator[None]:
    """Refuse to make tensors of more than ``numbers`` elements in all, before they are made.

    It counts what layers make their parameters of: ``torch.empty``, ``torch.randn`` and the like.

    Raises:
        AllocationLimitError: the block asks for more.
    """
    with _Limit(numbers):
        yield


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
