"""A framed STFT and an inverse STFT head.

Both use "same" padding: ``frames`` frames are exactly ``frames * hop_length`` samples, frame
``t`` centred on samples ``t * hop_length`` to ``(t + 1) * hop_length``, zeros beyond the ends.
"""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.linear import Linear, in_tiles

# Louder than any bin of a recording; keeps an untrained head finite.
MAX_MAGNITUDE = 100.0


def frame_count(samples: int, hop_length: int) -> int:
    """Frames that cover ``samples`` samples; the last one may be padded with silence."""
    return -(-samples // hop_length)


class FramedStft(nn.Module):
    """Hann-windowed spectra, one per frame."""

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = (n_fft - hop_length) // 2
        self.context_frames = ceil(self.padding / hop_length)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, n_fft / 2 + 1) complex."""
        return self.spectra(self.frames(waveform))

    def frames(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, n_fft), a view of the padded samples."""
        missing = -waveform.shape[-1] % self.hop_length
        padded = F.pad(waveform, (self.padding, self.padding + missing))
        return padded.unfold(-1, self.n_fft, self.hop_length)

    def spectra(self, frames: Tensor) -> Tensor:
        """(..., n_fft) -> (..., n_fft / 2 + 1) complex."""
        return torch.fft.rfft(frames * self.window)


class FramedIstft(nn.Module):
    """The inverse of ``FramedStft``: overlap-add of Hann-windowed segments."""

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = (n_fft - hop_length) // 2
        self.context_frames = ceil(self.padding / hop_length)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, n_fft / 2 + 1) complex -> (batch, frames * hop_length) waveform.

        ``mask`` (batch, frames, 1) keeps frames beyond an item's end out of its last samples.
        """
        segments = torch.fft.irfft(spectrum, self.n_fft) * self.window
        squares = self.window.square().expand(1, spectrum.shape[1], -1)
        if mask is not None:
            segments, squares = segments * mask, squares * mask
        envelope = self._overlap_add(squares).clamp(min=1e-11)
        return self._overlap_add(segments) / envelope

    def _overlap_add(self, segments: Tensor) -> Tensor:
        """(batch, frames, n_fft) -> (batch, frames * hop_length), the padding cut off."""
        batch, frames, _ = segments.shape
        hops = ceil(self.n_fft / self.hop_length)
        parts = F.pad(segments, (0, hops * self.hop_length - self.n_fft))
        parts = parts.view(batch, frames, hops, self.hop_length)
        total = segments.new_zeros(batch, frames + hops - 1, self.hop_length)
        for shift in range(hops):
            total[:, shift : shift + frames] += parts[:, :, shift]
        return total.flatten(1)[:, self.padding : self.padding + frames * self.hop_length]


class IstftHead(nn.Module):
    """A linear layer to log-magnitude and phase, then the inverse STFT with "same" padding.

    Source: Siuzdak, "Vocos" (arXiv 2306.00814): magnitudes are clipped at 100, only cosine and
    sine of the phase are used, so it needs no unwrapping.
    """

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.out = Linear(dim, n_fft + 2)
        self.istft = FramedIstft(n_fft, hop_length)
        self.context_frames = self.istft.context_frames

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames * hop_length) waveform.

        ``mask`` (batch, frames, 1) keeps frames beyond an item's end out of its last samples.
        """
        # In half precision the phase would be exact to a few degrees only.
        with torch.autocast(x.device.type, enabled=False):
            spectrum = in_tiles(self._spectrum, x.float().flatten(0, 1))
            return self.istft(spectrum.view(*x.shape[:2], -1), mask)

    def _spectrum(self, x: Tensor) -> Tensor:
        log_magnitude, phase = self.out(x).chunk(2, dim=-1)
        magnitude = log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
        # Faster than torch.polar.
        return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
