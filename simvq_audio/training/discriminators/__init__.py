"""Discriminators: families of sub-discriminators that tell recordings from reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError
from simvq_audio.training.discriminators.config import DiscriminatorConfig
from simvq_audio.training.discriminators.networks import (
    BandDiscriminator,
    ContrastDiscriminator,
    PeriodDiscriminator,
    ResolutionDiscriminator,
    StftDiscriminator,
)

__all__ = ["DiscriminatorConfig", "Discriminators", "FamilyOutput"]

_MAKE: dict[str, Callable[[Any], list[nn.Module]]] = {
    "stft": lambda c: [StftDiscriminator(n, c.channels, c.compression) for n in c.n_ffts],
    "contrast": lambda c: [ContrastDiscriminator(n, c.channels) for n in c.n_ffts],
    "period": lambda c: [PeriodDiscriminator(p, c.channels) for p in c.periods],
    "resolution": lambda c: [ResolutionDiscriminator(n, h, c.channels) for n, h in c.resolutions],
    "band": lambda c: [BandDiscriminator(n, c.bands, c.channels) for n in c.n_ffts],
}


class FamilyOutput(NamedTuple):
    """The outputs of one family for a batch.

    Attributes:
        scores: a score map per sub-discriminator, (batch, 1, ...) float32.
        features: for each sub-discriminator, the 4-D features of its layers, in the precision of
            the computation.
    """

    scores: list[Tensor]
    features: list[list[Tensor]]


class Discriminators(nn.Module):
    """All families of a configuration, with convolutions in channels-last memory.

    Items of a batch are judged independently.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.families = nn.ModuleList(
            nn.ModuleList(_MAKE[family.kind](family)) for family in config.families
        )
        self._window = max(getattr(member, "n_fft", 1) for member in chain(*self.families))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, waveform: Tensor) -> list[FamilyOutput]:
        """(batch, samples) float32 -> an output per family, in the configuration's order.

        Raises:
            ConfigError: there are fewer samples than the longest STFT window has.
        """
        if waveform.shape[-1] < self._window:
            raise ConfigError(
                f"crops of {waveform.shape[-1]} samples are too short for discriminators with a "
                f"window of {self._window}"
            )
        normalized = None
        outputs = []
        for family, members in zip(
            self.config.families, cast("Iterable[nn.ModuleList]", self.families)
        ):
            heard = waveform
            if family.normalize:
                normalized = normalize_level(waveform) if normalized is None else normalized
                heard = normalized
            judged = [member(heard) for member in members]
            outputs.append(FamilyOutput([s for s, _ in judged], [f for _, f in judged]))
        return outputs


def normalize_level(waveform: Tensor) -> Tensor:
    """(batch, samples) -> the same without its mean, at a peak of 0.8.

    Source: DAC (arXiv 2306.06546). Its floor of 1e-9 for peaks gives a silent crop gradients of
    1e9; here the floor is -60 dB of full scale.
    """
    centred = waveform - waveform.mean(dim=-1, keepdim=True)
    peak = centred.abs().amax(dim=-1, keepdim=True)
    return 0.8 * centred / peak.clamp(min=1e-3)
