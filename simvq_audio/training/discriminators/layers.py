"""What the sub-discriminators are made of."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    """A 2-D convolution with weight normalisation; odd kernels keep the size, strides apart."""
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation))
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation))


def run_layers(layers: Iterable[nn.Module], x: Tensor, slope: float) -> tuple[Tensor, list[Tensor]]:
    """Each layer and a leaky ReLU in turn -> the last one's output, and every layer's output."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return x, features


def spectrum(waveform: Tensor, n_fft: int, hop: int, window: Tensor, *, center: bool) -> Tensor:
    """(batch, samples) -> (batch, bins, frames) complex64, in float32 under autocast too."""
    with torch.autocast(waveform.device.type, enabled=False):
        return torch.stft(
            waveform.float(), n_fft, hop, window=window, center=center, return_complex=True
        )


def channels_last(x: Tensor) -> Tensor:
    """oneDNN's convolutions are up to three times faster with channels last."""
    return x.contiguous(memory_format=torch.channels_last)
