"""Multi-scale STFT discriminators (EnCodec's, arXiv 2210.13438)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from simvq_audio.training.config import AdversaryConfig


class StftDiscriminator(nn.Module):
    """2-D convolutions on a complex spectrogram, dilated in time, strided in frequency."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

        def conv(
            inputs: int, outputs: int, kernel: tuple[int, int], **options: object
        ) -> nn.Module:
            return weight_norm(nn.Conv2d(inputs, outputs, kernel, **options))

        layers = [conv(2, channels, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                conv(
                    channels,
                    channels,
                    (3, 9),
                    stride=(1, 2),
                    dilation=(dilation, 1),
                    padding=(dilation, 4),
                )
            )
        layers.append(conv(channels, channels, (3, 3), padding=1))
        self.layers = nn.ModuleList(layers)
        self.score = conv(channels, 1, (3, 3), padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> score map and the features of every layer, all 4-D float32."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.n_fft,
                self.n_fft // 4,
                window=self.window,
                normalized=True,
                return_complex=True,
                pad_mode="constant",
            )
            x = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)
        # oneDNN's convolutions are up to three times faster with channels last.
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x).float(), [f.float() for f in features]


class MultiScaleStftDiscriminator(nn.Module):
    """One ``StftDiscriminator`` a window length."""

    def __init__(self, config: AdversaryConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(StftDiscriminator(n, config.channels) for n in config.n_ffts)
        self.to(memory_format=torch.channels_last)

    def forward(self, waveform: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(batch, samples) -> one score map a scale, and all features in one list."""
        scores, features = [], []
        for scale in self.scales:
            score, layers = scale(waveform)
            scores.append(score)
            features.extend(layers)
        return scores, features
