"""EnCodec's multi-scale STFT discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.training.discriminators.layers import channels_last, conv, run_layers, spectrum


class StftDiscriminator(nn.Module):
    """2-D convolutions on a complex spectrogram, dilated in time, strided in frequency.

    Source: ``DiscriminatorSTFT`` of EnCodec (arXiv 2210.13438): Hann window, hop of a quarter
    window, spectra divided by the root of the window's energy, no padding at the ends.

    Args:
        n_fft: window in samples; inputs must not be shorter.
        channels: of every layer.
        compression: power that magnitudes are raised to first; 1 leaves them, as EnCodec does.
    """

    SLOPE = 0.2
    window: Tensor

    def __init__(self, n_fft: int, channels: int, compression: float = 1.0) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.compression = compression
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)
        inner = [
            conv(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1))
            for dilation in (1, 2, 4)
        ]
        self.layers = nn.ModuleList(
            [conv(2, channels, (3, 9)), *inner, conv(channels, channels, (3, 3))]
        )
        self.score = conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, frames, bins / 8) and every layer's features."""
        z = spectrum(waveform, self.n_fft, self.n_fft // 4, self.window, center=False)
        if self.compression != 1:
            # Floored at -80 dB, where the gradient of the root would grow without bound.
            power = z.real.square() + z.imag.square() + 1e-8
            z = z * power ** ((self.compression - 1) / 2)
        x = torch.stack([z.real, z.imag], dim=1).transpose(2, 3)
        x, features = run_layers(self.layers, channels_last(x), self.SLOPE)
        return self.score(x).float(), features
