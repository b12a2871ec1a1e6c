"""DAC's multi-band complex STFT discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from simvq_audio.training.discriminators.layers import channels_last, conv, run_layers, spectrum


class BandDiscriminator(nn.Module):
    """A stack of 2-D convolutions for every band of a complex spectrogram, and one score map.

    Source: ``MRD`` of DAC (arXiv 2306.06546) as the published SimVQ code has it: rectangular
    window, hop of a quarter window, the highest edge excluded.

    Args:
        n_fft: window in samples.
        edges: of the bands, rising, as fractions of the Nyquist frequency.
        channels: of every layer.
    """

    SLOPE = 0.1
    window: Tensor

    def __init__(self, n_fft: int, edges: Sequence[float], channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.ones(n_fft), persistent=False)
        bins = n_fft // 2 + 1
        self.bands = [(int(a * bins), int(b * bins)) for a, b in pairwise(edges)]
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                [
                    conv(2, channels, (3, 9)),
                    *(conv(channels, channels, (3, 9), stride=(1, 2)) for _ in range(3)),
                    conv(channels, channels, (3, 3)),
                ]
            )
            for _ in self.bands
        )
        self.score = conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, frames, bins / 8) and every stack's features."""
        z = spectrum(waveform, self.n_fft, self.n_fft // 4, self.window, center=True)
        x = torch.stack([z.real, z.imag], dim=1).transpose(2, 3)
        outputs, features = [], []
        for (low, high), layers in zip(self.bands, self.stacks):
            output, of_band = run_layers(layers, channels_last(x[..., low:high]), self.SLOPE)
            outputs.append(output)
            features.extend(of_band)
        return self.score(torch.cat(outputs, dim=-1)).float(), features
