"""Spectral differences between reconstruction and original, all in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError
from simvq_audio.training.losses.bins import BinsLoss
from simvq_audio.training.losses.config import LossConfig, MelConfig
from simvq_audio.training.losses.mel import MelLoss
from simvq_audio.training.losses.pair import SignalPair
from simvq_audio.training.losses.pesq import PesqLoss
from simvq_audio.training.losses.stoi import StoiLoss


class SpectralLosses(nn.Module):
    """Every loss between spectra that has a weight above zero.

    Spectra that several losses use are computed once per call, those of the original
    without a graph. A loss is a module with a ``forward(pair)`` that returns a scalar,
    ``hann_windows``, the lengths of the windows that it uses, and ``longest``, the length of its
    longest transform, both in samples.

    Args:
        config: the weights.
        mel: how mel spectra are made.
        sample_rate: in Hz.

    Raises:
        MissingExtraError: a package of the extra ``train`` is not installed.
    """

    def __init__(self, config: LossConfig, mel: MelConfig, sample_rate: int) -> None:
        super().__init__()
        make: dict[str, Callable[[], nn.Module]] = {
            "mel": lambda: MelLoss(mel, sample_rate),
            "bins": lambda: BinsLoss(sample_rate),
            "pesq": lambda: PesqLoss(sample_rate),
            "stoi": lambda: StoiLoss(sample_rate),
        }
        self.weights = {name: weight for name, weight in config.spectral.items() if weight > 0}
        terms: dict[str, Any] = {name: make[name]() for name in self.weights}
        self.terms = nn.ModuleDict(terms)
        self._window = max(term.longest for term in terms.values())
        for size in {size for term in terms.values() for size in term.hann_windows}:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, reconstruction: Tensor, original: Tensor) -> dict[str, Tensor]:
        """(batch, samples) twice -> each term by name, scalars, not weighted.

        Raises:
            ConfigError: there are fewer samples than the longest STFT window has.
        """
        if original.shape[-1] < self._window:
            raise ConfigError(
                f"crops of {original.shape[-1]} samples are too short for spectral losses with a "
                f"window of {self._window}"
            )
        with torch.autocast(reconstruction.device.type, enabled=False):
            pair = SignalPair(reconstruction.float(), original.float().detach(), self.get_buffer)
            return {name: term(pair) for name, term in self.terms.items()}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of what ``forward`` returned, a scalar."""
        return torch.stack([self.weights[name] * losses[name] for name in self.weights]).sum()
