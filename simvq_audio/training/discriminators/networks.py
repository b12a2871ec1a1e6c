"""The sub-discriminators, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


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
        self.layers = _dilated_layers(channels, _conv)
        self.score = _conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, frames, bins / 8) and every layer's features."""
        z = _spectrum(waveform, self.n_fft, self.n_fft // 4, self.window, center=False)
        if self.compression != 1:
            # Floored at -80 dB, where the gradient of the root would grow without bound.
            power = z.real.square() + z.imag.square() + 1e-8
            z = z * power ** ((self.compression - 1) / 2)
        x = torch.stack([z.real, z.imag], dim=1).transpose(2, 3)
        x, features = _run_layers(self.layers, _channels_last(x), self.SLOPE)
        return self.score(x).float(), features


class ContrastDiscriminator(nn.Module):
    """EnCodec's convolutions on log magnitudes less their local mean, beside that mean.

    In plain log magnitudes the spectral envelope, which a reconstruction shares with its original,
    is much larger than what tells them apart: how far harmonics stand out from the valleys between
    them, and how noise scatters. Without the local mean that is what the first layer sees, and the
    discriminator learns sooner than others do. Weight normalisation slows it down, so its
    convolutions have none. docs/history.md has the measurements.

    Args:
        n_fft: Hann window in samples; inputs must not be shorter. The hop is a quarter of it.
        channels: of every layer.
    """

    SLOPE = 0.2
    # The mean is taken over 7 frames and 31 bins around each point.
    AROUND = (7, 31)
    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)
        self.layers = _dilated_layers(channels, _plain_conv)
        self.score = _plain_conv(channels, 1, (3, 3))
        for conv in (*self.layers, self.score):
            nn.init.kaiming_normal_(conv.weight, a=self.SLOPE)
            nn.init.zeros_(conv.bias)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, frames, bins / 8) and every layer's features."""
        z = _spectrum(waveform, self.n_fft, self.n_fft // 4, self.window, center=False)
        # Floored at -70 dB, so that silence gives no gradients without bound.
        power = z.real.square() + z.imag.square() + 1e-7
        magnitudes = 0.5 * power.log().transpose(1, 2)[:, None]
        frames, bins = self.AROUND
        edges = (bins // 2, bins // 2, frames // 2, frames // 2)
        mean = F.avg_pool2d(F.pad(magnitudes, edges, mode="replicate"), self.AROUND, stride=1)
        # The mean lies between -8 and 0 in speech; this brings it to the scale of the rest.
        x = torch.cat([magnitudes - mean, 0.3 * (mean + 5)], dim=1)
        x, features = _run_layers(self.layers, _channels_last(x), self.SLOPE)
        return self.score(x).float(), features


class PeriodDiscriminator(nn.Module):
    """Convolutions along every ``period``-th sample, the same for each of the phases.

    Source: ``DiscriminatorP`` of HiFi-GAN (arXiv 2010.05646). DAC's differs in that it pads a
    whole period where the length is a multiple of it already; this one does not.

    Args:
        period: in samples.
        channels: of each layer; all but the last stride by 3.
    """

    SLOPE = 0.1

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        inputs = [1, *channels[:-1]]
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            _conv(i, o, (5, 1), stride=(s, 1)) for i, o, s in zip(inputs, channels, strides)
        )
        self.score = _conv(channels[-1], 1, (3, 1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, time, period) and every layer's features."""
        missing = -waveform.shape[-1] % self.period
        x = F.pad(waveform, (0, missing), mode="reflect") if missing else waveform
        x = x.view(x.shape[0], 1, -1, self.period)
        x, features = _run_layers(self.layers, _channels_last(x), self.SLOPE)
        return self.score(x).float(), features


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
                _conv(1, channels, (7, 5), stride=(2, 2)),
                _conv(channels, channels, (5, 3), stride=(2, 1)),
                _conv(channels, channels, (5, 3), stride=(2, 2)),
                _conv(channels, channels, (3, 3), stride=(2, 1)),
                _conv(channels, channels, (3, 3), stride=(2, 2)),
            ]
        )
        self.score = _conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, bins / 32, frames / 8), every layer's features."""
        x = _spectrum(waveform, self.n_fft, self.hop, self.window, center=True).abs()[:, None]
        x, features = _run_layers(self.layers, _channels_last(x), self.SLOPE)
        return self.score(x).float(), features


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
                    _conv(2, channels, (3, 9)),
                    *(_conv(channels, channels, (3, 9), stride=(1, 2)) for _ in range(3)),
                    _conv(channels, channels, (3, 3)),
                ]
            )
            for _ in self.bands
        )
        self.score = _conv(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, frames, bins / 8) and every stack's features."""
        z = _spectrum(waveform, self.n_fft, self.n_fft // 4, self.window, center=True)
        x = torch.stack([z.real, z.imag], dim=1).transpose(2, 3)
        outputs, features = [], []
        for (low, high), layers in zip(self.bands, self.stacks):
            output, of_band = _run_layers(
                cast("nn.Sequential", layers), _channels_last(x[..., low:high]), self.SLOPE
            )
            outputs.append(output)
            features.extend(of_band)
        return self.score(torch.cat(outputs, dim=-1)).float(), features


def _plain_conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Conv2d:
    """A 2-D convolution; odd kernels keep the size, strides apart."""
    height, width = (d * (k - 1) // 2 for k, d in zip(kernel, dilation))
    return nn.Conv2d(inputs, outputs, kernel, stride, (height, width), dilation)


def _conv(*shape: Any, **more: Any) -> nn.Module:
    """The same with weight normalisation."""
    return weight_norm(_plain_conv(*shape, **more))


def _dilated_layers(channels: int, conv: Callable[..., nn.Module]) -> nn.ModuleList:
    """EnCodec's: for two input channels, (frames, bins); bins are halved three times."""
    inner = [
        conv(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1))
        for dilation in (1, 2, 4)
    ]
    return nn.ModuleList([conv(2, channels, (3, 9)), *inner, conv(channels, channels, (3, 3))])


def _run_layers(
    layers: Iterable[nn.Module], x: Tensor, slope: float
) -> tuple[Tensor, list[Tensor]]:
    """Each layer and a leaky ReLU in turn -> the last one's output, and every layer's output."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return x, features


def _spectrum(waveform: Tensor, n_fft: int, hop: int, window: Tensor, *, center: bool) -> Tensor:
    """(batch, samples) -> (batch, bins, frames) complex64, in float32 under autocast too."""
    with torch.autocast(waveform.device.type, enabled=False):
        return torch.stft(
            waveform.float(), n_fft, hop, window=window, center=center, return_complex=True
        )


def _channels_last(x: Tensor) -> Tensor:
    """oneDNN's convolutions are up to three times faster with channels last."""
    return x.contiguous(memory_format=torch.channels_last)
