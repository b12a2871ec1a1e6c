"""Spectral differences between reconstruction and original, all in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError, MissingExtraError
from simvq_audio.training.losses.config import (
    ComplexStftLossConfig,
    MelLossConfig,
    SpectralLossConfig,
    StftLossConfig,
)
from simvq_audio.training.losses.intelligibility import IntelligibilityLoss
from simvq_audio.training.losses.log_magnitude import LogMagnitudeLoss
from simvq_audio.training.losses.loudness import LoudnessLoss

# Squared magnitudes count as at least this much, so that gradients stay finite in silence.
_QUIET = 1e-18
_QUIET_COMPRESSED = 1e-8


class SpectralLosses(nn.Module):
    """Every spectral term with a weight above zero.

    Spectra that several terms ask for are computed once a call, and the original's without
    building a graph.

    Args:
        config: the terms.
        sample_rate: in Hz.

    Raises:
        MissingExtraError: a package of the extra ``train`` is not installed.
    """

    def __init__(self, config: SpectralLossConfig, sample_rate: int) -> None:
        super().__init__()
        make = {
            "mel": lambda: MelLoss(config.mel, sample_rate),
            "stft": lambda: StftLoss(config.stft),
            "complex_stft": lambda: ComplexStftLoss(config.complex_stft),
            "log_magnitude": lambda: LogMagnitudeLoss(sample_rate),
            "loudness": lambda: LoudnessLoss(sample_rate),
            "intelligibility": lambda: IntelligibilityLoss(sample_rate),
        }
        self.weights = {name: weight for name, weight in config.weights.items() if weight > 0}
        self.terms = nn.ModuleDict({name: make[name]() for name in self.weights})
        self._window = max(term.longest for term in self.terms.values())
        for size in {size for term in self.terms.values() for size in term.hann_windows}:
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
            pair = Pair(reconstruction.float(), original.float().detach(), self.get_buffer)
            return {name: term(pair) for name, term in self.terms.items()}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of what ``forward`` returned, a scalar."""
        return torch.stack([self.weights[name] * losses[name] for name in self.weights]).sum()


class Pair:
    """A reconstruction, its original and their spectra."""

    def __init__(
        self, reconstruction: Tensor, original: Tensor, buffer: Callable[[str], Tensor]
    ) -> None:
        self.reconstruction = reconstruction
        self.original = original
        self._buffer = buffer
        self._spectra: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def spectra(self, window: int, hop: int, padding: int = 1) -> tuple[Tensor, Tensor]:
        """Of the reconstruction and the original, (batch, bins, frames) complex.

        Hann window, frames centred on multiples of the hop, ends reflected.

        Args:
            padding: the transform is so many times as long as the window, zeros beside it.
        """
        key = window, hop, padding
        if key not in self._spectra:
            shape = self._buffer(f"window_{window}")
            ours, theirs = (
                torch.stft(
                    x,
                    padding * window,
                    hop,
                    window,
                    window=shape,
                    pad_mode="reflect",
                    return_complex=True,
                )
                for x in (self.reconstruction, self.original)
            )
            self._spectra[key] = ours, theirs
        return self._spectra[key]

    def powers(self, window: int, hop: int, padding: int = 1) -> tuple[Tensor, Tensor]:
        """The same as mean squares, (batch, bins, frames): a frame's bins add up to its level."""
        # Parseval: both halves of the spectrum, over the window's length and energy (3/8 of it).
        scale = 2 / (0.375 * padding * window**2)
        ours, theirs = (
            scale * _energy(spectrum) for spectrum in self.spectra(window, hop, padding)
        )
        return ours, theirs


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes, averaged over scales; in nepers.

    Source: HiFi-GAN (arXiv 2010.05646) for one scale; DAC (arXiv 2306.06546) for several, with
    the number of bands growing with the window so that no filter is empty.
    """

    def __init__(self, config: MelLossConfig, sample_rate: int) -> None:
        super().__init__()
        try:
            from torchaudio.functional import melscale_fbanks
        except ImportError as error:
            raise MissingExtraError(
                "the mel loss needs torchaudio; install it with: pip install 'simvq-audio[train]'"
            ) from error
        self.config = config
        self.hann_windows = {window for window, _, _ in config.scales}
        self.longest = max(self.hann_windows)
        norm = "slaney" if config.filters == "slaney" else None
        for index, (window, _, bands) in enumerate(config.scales):
            filters = melscale_fbanks(
                window // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm, config.filters
            )
            self.register_buffer(f"filters_{index}", filters.T.contiguous(), persistent=False)

    def forward(self, pair: Pair) -> Tensor:
        """-> scalar."""
        distances = []
        for index, (window, hop, _) in enumerate(self.config.scales):
            filters = self.get_buffer(f"filters_{index}")
            ours, theirs = (
                (filters @ _magnitude(spectrum)).clamp(min=self.config.floor).log()
                for spectrum in pair.spectra(window, hop)
            )
            distances.append((ours - theirs).abs().mean())
        return torch.stack(distances).mean()


class ComplexStftLoss(nn.Module):
    """Mean absolute difference of real and imaginary parts after |z| -> |z|^power.

    Source: the compressed complex spectra of speech enhancement, as in Braun and Tashev, "A
    consolidated view of loss functions for supervised deep learning-based speech enhancement"
    (arXiv 2009.12286), with absolute instead of squared differences.
    """

    def __init__(self, config: ComplexStftLossConfig) -> None:
        super().__init__()
        self.config = config
        self.hann_windows = {config.window}
        self.longest = config.window

    def forward(self, pair: Pair) -> Tensor:
        """-> scalar."""
        ours, theirs = (
            self._compress(spectrum)
            for spectrum in pair.spectra(self.config.window, self.config.hop)
        )
        return (ours - theirs).abs().mean()

    def _compress(self, spectrum: Tensor) -> Tensor:
        """(batch, bins, frames) complex -> (batch, bins, frames, 2)."""
        energy = _energy(spectrum).clamp(min=_QUIET_COMPRESSED)
        gain = energy.pow((self.config.power - 1) / 2)
        return torch.view_as_real(spectrum) * gain[..., None]


class StftLoss(nn.Module):
    """auraloss' multi-resolution STFT loss: spectral convergence plus log-magnitude distance.

    Source: Yamamoto et al., "Parallel WaveGAN" (arXiv 1910.11480), by way of auraloss.
    """

    hann_windows: frozenset[int] = frozenset()  # auraloss has its own

    def __init__(self, config: StftLossConfig) -> None:
        super().__init__()
        try:
            from auraloss.freq import MultiResolutionSTFTLoss
        except ImportError as error:
            raise MissingExtraError(
                "the multi-resolution STFT loss needs auraloss; install it with: "
                "pip install 'simvq-audio[train]'"
            ) from error
        n_ffts, hops, windows = (list(column) for column in zip(*config.resolutions))
        self.longest = max(n_ffts)
        self.loss = MultiResolutionSTFTLoss(n_ffts, hops, windows)

    def forward(self, pair: Pair) -> Tensor:
        """-> scalar."""
        return self.loss(pair.reconstruction[:, None], pair.original[:, None])


def _energy(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _magnitude(spectrum: Tensor) -> Tensor:
    return _energy(spectrum).clamp(min=_QUIET).sqrt()
