"""Harmonic and noise excitation that is the same however a recording is cut into pieces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Phases are summed in units of 2^-32 cycles: sums of integers do not depend on where a recording
# is cut and lose no precision over hours.
_UNITS = 2**32
# Phases and frame numbers are handed on in float32, which holds 24 bits exactly.
_PHASE_STEPS = 2**24
FRAME_NUMBERS = 2**20
# Closer to a pulse's peak than this sine, the closed form would divide by zero.
_PEAK = 1e-5


class PhaseCounter:
    """Sums pitch to phase over a recording that arrives in pieces.

    A phase belongs to the middle of its frame; from one middle to the next the frequency changes
    linearly.

    Args:
        hop_length: samples a frame.
        sample_rate: in Hz.
    """

    def __init__(self, hop_length: int, sample_rate: int) -> None:
        self._seconds = hop_length / sample_rate
        self._frequency: Tensor | None = None  # of the last frame, (batch, 1)
        self._phase: Tensor | None = None
        self._frames = 0

    def push(self, pitch: Tensor) -> Tensor:
        """Append frames.

        Args:
            pitch: (batch, frames), octaves above 1 Hz.

        Returns:
            (batch, 3, frames) float32: frequency in Hz, phase in cycles from 0 to 1, number of
            the frame modulo 2^20.
        """
        # Float64 first: vectorised and single float32 powers differ in the last bit.
        frequency = pitch.double().exp2().float().double()
        count = frequency.shape[1]
        if count:
            first = self._frequency is None
            before = frequency[:, :1] if self._frequency is None else self._frequency
            joined = torch.cat([before, frequency], dim=1)
            steps = (joined[:, 1:] + joined[:, :-1]) * (0.5 * self._seconds * _UNITS)
            units = steps.round().long()
            if first:
                units[:, 0] = 0
            else:
                units[:, 0] += self._phase[:, 0]
            phase = units.cumsum(dim=1) % _UNITS
            self._frequency, self._phase = frequency[:, -1:], phase[:, -1:]
        else:
            phase = frequency.long()
        number = (torch.arange(count, device=pitch.device) + self._frames) % FRAME_NUMBERS
        self._frames += count
        cycles = (phase // (_UNITS // _PHASE_STEPS)).float() / _PHASE_STEPS
        return torch.stack([frequency.float(), cycles, number.expand_as(phase).float()], dim=1)


def extend(source: Tensor, frames: int, hop_length: int, sample_rate: int) -> Tensor:
    """Continue (batch, 3, n) of ``PhaseCounter`` by ``frames`` at both ends, pitch held."""
    frequency, phase, number = source.unbind(1)
    far = torch.arange(1, frames + 1, device=source.device)
    cycles = hop_length / sample_rate
    before, after = frequency[:, :1].expand(-1, frames), frequency[:, -1:].expand(-1, frames)
    frequency = torch.cat([before, frequency, after], dim=1)
    phase = torch.cat(
        [
            phase[:, :1] - before * cycles * far.flip(0),
            phase,
            phase[:, -1:] + after * cycles * far,
        ],
        dim=1,
    )
    number = torch.cat([number[:, :1] - far.flip(0), number, number[:, -1:] + far], dim=1)
    return torch.stack([frequency, phase - phase.floor(), number % FRAME_NUMBERS], dim=1)


def harmonic_pulses(source: Tensor, hop_length: int, sample_rate: int, highest: float) -> Tensor:
    """Cosines of amplitude 1 at all harmonics up to ``highest`` Hz: a pulse where phase is 0.

    Args:
        source: (batch, 3, frames) as ``PhaseCounter`` gives it.

    Returns:
        (batch, (frames - 1) * hop_length): from the middle of the first frame to that of the last.
    """
    frequency, phase = source[:, 0], source[:, 1]
    here, there = frequency[:, :-1, None], frequency[:, 1:, None]
    time = torch.arange(0.5, hop_length, device=source.device) / sample_rate
    slope = (there - here) * (sample_rate / hop_length)
    cycles = phase[:, :-1, None] + time * (here + 0.5 * slope * time)
    cycles = cycles - cycles.round()
    count = torch.floor(highest / torch.maximum(here, there))
    # Dirichlet's kernel: the sum of the cosines in closed form.
    fundamental = torch.sin(math.pi * cycles)
    peak = fundamental.abs() < _PEAK
    ratio = torch.sin(math.pi * (2 * count + 1) * cycles) / fundamental.masked_fill(peak, 1.0)
    return (0.5 * (torch.where(peak, 2 * count + 1, ratio) - 1)).flatten(1)


def numbered_noise(number: Tensor, hop_length: int) -> Tensor:
    """White noise of mean 0 and variance 1 that follows from the frames' numbers alone.

    Args:
        number: (batch, frames), whole numbers from 0 to below 2^20.

    Returns:
        (batch, frames * hop_length), uniformly distributed; equal on every machine.
    """
    x = number.long()[..., None] * hop_length + torch.arange(hop_length, device=number.device)
    # A 32-bit integer hash of multiplications and shifts; products stay below 2^63.
    for shift, factor in ((16, 0x7FEB352D), (15, 0x6C2B58A5)):
        x = ((x ^ (x >> shift)) * factor) & (_UNITS - 1)
    x = x ^ (x >> 16)
    width = math.sqrt(12.0)
    return ((x.float() + 0.5) * (width / _UNITS) - width / 2).flatten(1)
