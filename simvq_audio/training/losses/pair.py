"""Two signals and their spectra, for losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class SignalPair:
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
            padding: length of the transform in windows; zero outside the window.
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
        """Mean squares, (batch, bins, frames): the sum over a frame's bins is its mean square."""
        # Parseval: both halves of the spectrum, over the window's length and energy (3/8 of it).
        scale = 2 / (0.375 * padding * window**2)
        ours, theirs = (scale * energy(spectrum) for spectrum in self.spectra(window, hop, padding))
        return ours, theirs


def energy(spectrum: Tensor) -> Tensor:
    """Squared magnitudes."""
    return spectrum.real.square() + spectrum.imag.square()
