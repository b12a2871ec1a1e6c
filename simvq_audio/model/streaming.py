"""Coding in pieces, with the same result as in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """Takes an input in pieces of any length, returns the output as soon as it is final.

    Attributes:
        look_ahead_frames: most frames that must follow a frame before it is final.
    """

    look_ahead_frames: int

    def push(self, piece: Tensor, final: bool = False) -> Tensor:
        """Append ``piece`` (time in the last dimension); return the output that is now final.

        ``final`` returns the rest and ends the stream.
        """
        ...


class WindowedStream:
    """Streams a module of finite receptive field by giving it overlapping windows.

    Each window has ``context`` frames before the frames that it outputs and ``look_ahead`` frames
    after them, except at the ends of the recording, where the padding is the same as in one piece.

    Args:
        process: input (batch, ..., frames * in_hop) -> output (batch, ..., frames * out_hop).
        context: earlier frames that an output frame depends on.
        in_hop: input elements per frame (the hop length for an encoder, 1 for a decoder).
        out_hop: output elements per frame.
        look_ahead: later frames that an output frame depends on; None: as many as earlier ones.
    """

    def __init__(
        self,
        process: Callable[[Tensor], Tensor],
        context: int,
        in_hop: int,
        out_hop: int,
        look_ahead: int | None = None,
    ) -> None:
        self._process = process
        self._context = context
        self.look_ahead_frames = context if look_ahead is None else look_ahead
        self._in_hop = in_hop
        self._out_hop = out_hop
        self._pending: Tensor | None = None  # input from frame _start on
        self._start = 0
        self._settled = 0

    def push(self, piece: Tensor, final: bool = False) -> Tensor:
        """See ``Stream.push``."""
        if self._pending is not None:
            piece = torch.cat([self._pending, piece], dim=-1)
        self._pending = piece
        length = piece.shape[-1]
        # The last frame of a recording may be partial; before the end only whole frames count.
        frames = -(-length // self._in_hop) if final else length // self._in_hop
        end = self._start + frames - (0 if final else self.look_ahead_frames)
        if end <= self._settled:
            # Nothing is final yet: an empty output of the right shape, from an empty input.
            return self._process(piece[..., :0])
        window = piece if final else piece[..., : frames * self._in_hop]
        output = self._process(window)
        first = (self._settled - self._start) * self._out_hop
        output = output[..., first : (end - self._start) * self._out_hop]
        self._settled = end
        start = max(0, end - self._context)
        self._pending = piece[..., (start - self._start) * self._in_hop :].clone()
        self._start = start
        return output
