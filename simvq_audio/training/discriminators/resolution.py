"""UnivNet's multi-resolution discriminator, as in Vocos."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.training.discriminators.layers import channels_last, conv, run_layers, spectrum


class ResolutionDiscriminator(nn.Module):
    """2-D convolutions on a magnitude spectrogram, strided in time and frequency.

    Source: ``DiscriminatorR`` of UnivNet (arXiv 2106.07889) with the kernels that Vocos
    (arXiv 2306.00814) and the published SimVQ code give it, and their rectangular window.

    Args:
        n_fft, hop: of the STFT, in samples.
        channels: of every layer.
    """

    SLOPE = 0.1
    window: Tensor

    def __init__(self, n_fft: int, hop: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop = hop
        self.register_buffer("window", torch.ones(n_fft), persistent=False)
        self.layers = nn.ModuleList(
            [
                conv(1, channels, (7, 5), stride=(2, 2)),
                conv(channels, channels, (5, 3), stride=(2, 1)),
                conv(channels, channels, (5, 3), stride=(2, 2)),
                conv(channels, channels, (3, 3), stride=(2, 1)),
                conv(channels, channels, (3, 3), stride=(2, 2)),
            ]
        )
        self.score = conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, bins / 32, frames / 8), every layer's features."""
        x = spectrum(waveform, self.n_fft, self.hop, self.window, center=True).abs()[:, None]
        x, features = run_layers(self.layers, channels_last(x), self.SLOPE)
        return self.score(x).float(), features
