"""Encoding at a lower bit rate: codes near the latents that are cheap under the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simvq_audio.bitstream.blocks import BLOCK_FRAMES, HEAD_BYTES, encode_blocks
from simvq_audio.errors import ConfigError
from simvq_audio.prior import CausalPrior, prior_for_codes
from simvq_audio.prior.search import CheaperCodes

# Largest worth of a bit, as a share of the codebook's variance.
_MOST = 1.0
# The search ends within this share of the wanted rate, or after this many rounds.
_TOLERANCE = 0.02
_ROUNDS = 6
# Start of the search: share of the bits that remains, by the worth of a bit; measured on speech
# with the prior of compact-1.
_WORTH = (1e-4, 3.6e-3, 1.1e-2, 2.1e-2, 3.6e-2, 0.11, 0.21, 0.71)
_REMAINS = (1.0, 0.94, 0.87, 0.80, 0.74, 0.60, 0.48, 0.16)
# Blocks of a long recording that share a weight.
_GROUP_BLOCKS = 16


def prior_for_rate(codes_id: str) -> CausalPrior:
    """The prior that says which codes are cheap.

    Raises:
        ConfigError: there is none for this model.
    """
    prior = prior_for_codes(codes_id)
    if prior is None:
        raise ConfigError("this model has no prior, so its bit rate cannot be chosen")
    return prior


class Cheaper:
    """Brings recordings to a bit rate.

    Args:
        codebook: (codes, dim) float32.
        prior: predicts the codes.
        kbps: of the payload, all channels of a recording together.
    """

    def __init__(self, codebook: np.ndarray, prior: CausalPrior, kbps: float) -> None:
        self.prior = prior
        self.kbps = kbps
        self._finder = CheaperCodes(codebook, prior)
        self._most = math.log(_MOST * float(codebook.var(axis=0).sum()))

    def bring(self, groups: Sequence[Group]) -> None:
        """Choose the codes of all groups, each for its own budget."""
        for group in groups:
            group.begin(self)
        for _ in range(_ROUNDS):
            trials = [(group, weight) for group in groups for weight in group.next_weights()]
            if not trials:
                break
            found = iter(
                self._finder.find(
                    [block for group, _ in trials for block in group.blocks],
                    [math.exp(weight) for group, weight in trials for _ in group.blocks],
                )
            )
            for group, weight in trials:
                group.note(self, weight, [next(found) for _ in group.blocks])

    def at_weight(self, latents: np.ndarray, weight: float) -> np.ndarray:
        """Indices (channels, frames) for latents (channels, dim, frames); see ``CheaperCodes``."""
        blocks = _cut(latents.transpose(0, 2, 1))
        codes = self._finder.find(blocks, [weight] * len(blocks))
        return np.concatenate([np.empty(0, np.int64), *codes]).reshape(len(latents), -1)

    @property
    def most(self) -> float:
        """Logarithm of the largest weight."""
        return self._most


class Group:
    """Blocks that share a weight, and the trials for them.

    Args:
        latents: (channels, dim, frames) float32, before quantisation, from the start of a block.
        nearest: (channels, frames), the best codes; used if they are cheap enough.
        budget: bits for tables and blocks.

    Attributes:
        codes: the best that fit into the budget, (channels, frames); otherwise the cheapest.
        bits: their size.
    """

    def __init__(self, latents: np.ndarray, nearest: np.ndarray, budget: float) -> None:
        self.blocks = _cut(latents.transpose(0, 2, 1))
        self.codes = nearest
        self.bits = 0
        self._budget = budget
        self._nearest_bits = 0
        # Logarithms of a weight that is too small and of one that is large enough, and their bits.
        self._low: tuple[float, int] | None = None
        self._high: tuple[float, int] | None = None
        self._most = 0.0

    def begin(self, cheaper: Cheaper) -> None:
        """Count the bits of the nearest codes."""
        self.bits = self._nearest_bits = self._count(cheaper, self.codes)
        self._most = cheaper.most

    def next_weights(self) -> list[float]:
        """Logarithms of the weights to try next; empty when the search is over."""
        if self._nearest_bits <= self._budget:
            return []
        if self._high is None:
            if self._low is None:
                share = max(0.0, self._budget) / self._nearest_bits
                worth = np.interp(share, _REMAINS[::-1], np.log(_WORTH[::-1]))
                around = [self._most + float(worth) + step for step in (-0.5, 0.0, 0.5)]
            elif self._low[0] >= self._most:
                return []
            else:
                around = [self._low[0] + step for step in (0.7, 1.4, 2.8)]
            return sorted({min(weight, self._most) for weight in around})
        if self._high[1] >= (1 - _TOLERANCE) * self._budget:
            return []
        low = self._low or (self._most + math.log(_WORTH[0]), self._nearest_bits)
        if self._high[0] - low[0] < 1e-3 or self._high[1] >= low[1]:
            return []
        # Bits fall nearly as a power of the weight.
        aims = [math.log(self._budget * (1 - share * _TOLERANCE)) for share in (0.25, 0.7)]
        ends = [math.log(self._high[1]), math.log(low[1])]
        return [float(np.interp(aim, ends, [self._high[0], low[0]])) for aim in aims]

    def note(self, cheaper: Cheaper, weight: float, blocks: list[np.ndarray]) -> None:
        """Record the codes found with a weight, given its logarithm."""
        codes = np.concatenate(blocks).reshape(self.codes.shape)
        bits = self._count(cheaper, codes)
        if bits > self._budget:
            if self._low is None or weight > self._low[0]:
                self._low = weight, bits
        elif self._high is None or weight < self._high[0]:
            self._high = weight, bits
        if self.bits > self._budget:
            better = bits < self.bits
        else:
            better = self.bits < bits <= self._budget
        if better:
            self.codes, self.bits = codes, bits

    @staticmethod
    def _count(cheaper: Cheaper, codes: np.ndarray) -> int:
        return 8 * (len(encode_blocks(codes, cheaper.prior)) - HEAD_BYTES)


class CheaperStream:
    """Brings one recording to a bit rate as its latents arrive, in constant memory.

    Blocks of some minutes share a weight. Bits that one group leaves go to the next.

    Args:
        cheaper: does the work.
        channels: of the recording.
        frame_rate: frames per second.
    """

    def __init__(self, cheaper: Cheaper, channels: int, frame_rate: float) -> None:
        self._cheaper = cheaper
        self._group = BLOCK_FRAMES * max(1, _GROUP_BLOCKS // channels)
        self._frame_seconds = 1 / frame_rate
        self._channels = channels
        self._latents: list[np.ndarray] = []
        self._nearest: list[np.ndarray] = []
        self._codes: list[np.ndarray] = [np.empty((channels, 0), np.int32)]
        self._waiting = self._frames = 0
        self._spent = 8 * HEAD_BYTES

    def push(self, latents: Sequence[np.ndarray], nearest: np.ndarray) -> None:
        """Append latents, in pieces (channels, dim, frames), and the nearest code of each frame.

        Args:
            nearest: (channels, frames).
        """
        if not nearest.shape[1]:
            return
        self._latents += latents
        self._nearest.append(nearest)
        self._waiting += nearest.shape[1]
        # One group is kept until the end, since a short rest could save too little.
        while self._waiting >= 2 * self._group:
            seconds = (self._frames + self._group) * self._frame_seconds
            self._take(self._group, seconds)

    def finish(self, seconds: float) -> np.ndarray:
        """The codes of the whole recording, int32 (channels, frames).

        Args:
            seconds: its length.

        Raises:
            ConfigError: it cannot be coded at so low a rate.
        """
        if self._waiting:
            self._take(self._waiting, seconds)
            refuse_overspent(self._spent, seconds, self._cheaper.kbps)
        return np.concatenate(self._codes, axis=1)

    def _take(self, frames: int, seconds: float) -> None:
        """Code the first ``frames`` that are waiting; they end at ``seconds``."""
        latents = np.concatenate(self._latents, axis=2)
        nearest = np.concatenate(self._nearest, axis=1)
        budget = 1000 * self._cheaper.kbps * seconds - self._spent
        group = Group(latents[..., :frames], nearest[:, :frames], budget)
        self._cheaper.bring([group])
        self._codes.append(group.codes.astype(np.int32))
        self._spent += group.bits
        self._frames += frames
        self._waiting -= frames
        self._latents = [latents[..., frames:].copy()]
        self._nearest = [nearest[:, frames:].copy()]


def bring_all(
    cheaper: Cheaper,
    latents: Sequence[np.ndarray],
    nearest: Sequence[np.ndarray],
    seconds: Sequence[float],
) -> list[np.ndarray]:
    """Bring several short recordings to the bit rate together.

    Args:
        latents, nearest: of each, as ``CheaperStream.push`` takes them.
        seconds: length of each.

    Returns:
        int32 (channels, frames) each.

    Raises:
        ConfigError: one of them cannot be coded at so low a rate.
    """
    head = 8 * HEAD_BYTES
    groups = [
        Group(z, codes, 1000 * cheaper.kbps * length - head)
        for z, codes, length in zip(latents, nearest, seconds)
    ]
    cheaper.bring([group for group in groups if group.blocks])
    for group, length in zip(groups, seconds):
        if group.blocks:
            refuse_overspent(group.bits + head, length, cheaper.kbps)
    return [group.codes.astype(np.int32) for group in groups]


def refuse_overspent(bits: int, seconds: float, kbps: float) -> None:
    """Check that a recording takes no more bits than its rate allows.

    Raises:
        ConfigError: it does.
    """
    if bits > 1000 * kbps * seconds:
        raise ConfigError(
            f"this recording cannot be coded at {kbps:g} kbit/s; "
            f"the least is {math.ceil(bits / seconds) / 1000:.3f}"
        )


def _cut(latents: np.ndarray) -> list[np.ndarray]:
    """Blocks of (channels, frames, dim), those of channel 0 first."""
    spans = range(0, latents.shape[1], BLOCK_FRAMES)
    return [channel[start : start + BLOCK_FRAMES] for channel in latents for start in spans]
