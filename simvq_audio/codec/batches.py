"""Grouping of short recordings, so that one pass of the model takes several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A recording to be put into a group.

    Attributes:
        index: the caller's.
        seconds: its length.
        channels: each takes a row of the batch.
    """

    index: int
    seconds: float
    channels: int


def grouped(items: Sequence[Item], limit: float) -> Iterator[list[int]]:
    """Group items of similar length, so that padding stays small.

    Args:
        limit: seconds of a group, over all rows and padding included.

    Yields:
        indices of the items; an item that exceeds the limit alone is a group of its own.
    """
    group: list[int] = []
    rows = 0
    for item in sorted(items, key=lambda item: item.seconds):
        if group and (rows + item.channels) * item.seconds > limit:
            yield group
            group, rows = [], 0
        group.append(item.index)
        rows += item.channels
    if group:
        yield group
