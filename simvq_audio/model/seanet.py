"""SEANet: EnCodec's causal waveform encoder, whole and as a stream.

Source: Défossez et al., "High Fidelity Neural Audio Compression" (arXiv 2210.13438), and its
published code (facebookresearch/encodec), in the causal, weight-normalised form that the published
SimVQ model uses. Tensors are (batch, channels, 1, time) inside, with channels last in memory: then
convolutions reorder nothing, and those of kernel 1 and the LSTM take activations as they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from simvq_audio.model.config import SeanetEncoderConfig
from simvq_audio.model.frames import frame_count
from simvq_audio.model.streaming import Stream


def as_image(waveform: Tensor) -> Tensor:
    """(batch, samples) -> (batch, 1, 1, samples), with channels last in memory."""
    return waveform[:, None, None].to(memory_format=torch.channels_last)


class CausalConv(nn.Module):
    """Weight-normalised convolution that pads by reflection, mostly on the left.

    ``length`` inputs give ceil(length / stride) outputs. The kernel is at least twice the stride
    unless the stride is 1, so the right padding is never wider than the left one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.left = kernel_size - stride
        self.conv = weight_norm(nn.Conv1d(in_channels, out_channels, kernel_size, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, 1, length) -> (batch, out_channels, 1, ceil(length / stride))."""
        return convolve(self.pad(x), self.conv.weight, self.conv.bias, self.stride)

    def pad(self, x: Tensor) -> Tensor:
        """Pad a whole input, length at least 1, as the published code does.

        Reflection needs more samples than it pads. A shorter input gets zeros on its right first,
        and as many samples are cut from the padded end.
        """
        right = -x.shape[-1] % self.stride
        zeros = max(0, self.left + 1 - x.shape[-1])
        if zeros:
            x = F.pad(x, (0, zeros))
        if self.left or right:  # padding by nothing would copy
            x = F.pad(x, (self.left, right, 0, 0), mode="reflect")
        return x[..., : x.shape[-1] - zeros]


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolve (batch, in_channels, 1, length) in time; weight (out_channels, in_channels, k)."""
    return F.conv2d(x, weight.unsqueeze(2), bias, (1, stride))


class SeanetResidualBlock(nn.Module):
    """A narrow convolution and one of kernel 1, beside a shortcut of kernel 1."""

    def __init__(self, dim: int, kernel_size: int, compress: int) -> None:
        super().__init__()
        self.narrow = CausalConv(dim, dim // compress, kernel_size)
        self.widen = CausalConv(dim // compress, dim, 1)
        self.shortcut = CausalConv(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim, 1, length) -> the same."""
        return self.shortcut(x) + self.widen(F.elu(self.narrow(F.elu(x))))


class Stage(nn.Module):
    """A residual block, then a strided convolution to twice the channels."""

    def __init__(self, dim: int, stride: int, config: SeanetEncoderConfig) -> None:
        super().__init__()
        self.residual = SeanetResidualBlock(dim, config.residual_kernel_size, config.compress)
        self.down = CausalConv(dim, 2 * dim, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim, 1, length) -> (batch, 2 dim, 1, ceil(length / stride))."""
        return self.down(F.elu(self.residual(x)))


class SeanetEncoder(nn.Module):
    """Convolution, a stage for each stride, LSTM with a skip, convolution to the latent.

    Attributes:
        hop_length: samples per frame.
        latent_dim: channels of the output.
    """

    def __init__(self, config: SeanetEncoderConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = latent_dim
        self.hop_length = config.hop_length
        self.first = CausalConv(1, config.filters, config.kernel_size)
        self.stages = nn.ModuleList(
            Stage(config.filters << index, stride, config)
            for index, stride in enumerate(config.strides)
        )
        dim = config.filters << len(config.strides)
        self.lstm = nn.LSTM(dim, dim, config.lstm_layers, batch_first=True)
        self.last = CausalConv(dim, latent_dim, config.last_kernel_size)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> (batch, latent_dim, frames), frames = ceil(samples / hop_length).

        Args:
            lengths: (batch,) sample counts of items that are shorter than the batch; each item's
                frames are then what they would be alone, and those beyond its end are zero.
        """
        if lengths is None:
            return self._encode(waveform)
        counts = lengths.tolist()
        if all(count == waveform.shape[-1] for count in counts):
            return self._encode(waveform)
        # The reflection at an item's end depends on its length in every strided layer, so items of
        # unequal length have no common padding.
        frames = frame_count(waveform.shape[-1], self.hop_length)
        latents = [
            self._encode(item[None, :count]) for item, count in zip(waveform, counts, strict=True)
        ]
        return torch.cat([F.pad(latent, (0, frames - latent.shape[-1])) for latent in latents])

    def _encode(self, waveform: Tensor) -> Tensor:
        if waveform.shape[-1] == 0:
            return waveform.new_zeros(waveform.shape[0], self.latent_dim, 0)
        x = self.first(as_image(waveform))
        for stage in self.stages:
            x = stage(x)
        x = x.squeeze(2).transpose(1, 2)
        x = (self.lstm(x)[0] + x).transpose(1, 2).unsqueeze(2)
        # The latent is float32: codes must not depend on the precision of the last layer.
        with torch.autocast(waveform.device.type, enabled=False):
            return self.last(F.elu(x.float())).squeeze(2)

    def fold_weight_norm(self) -> None:
        """Replace norm and direction of each weight by the weight, for a model that only codes.

        The encoder then computes the same, but its state is no longer that of a model file.
        """
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")

    def stream(self) -> Stream:
        """A stream from waveform (batch, samples) to latent, exact for any pieces.

        It computes without gradient, in float32, with the present weights.
        """
        return _SeanetStream(self)


# The streams below take and give (batch, channels, 1, time), without gradient. An output leaves as
# soon as its inputs are known: the layers are causal, and only the reflection on the left, which
# needs the first ``left + 1`` inputs, holds anything back.


class _ConvStream:
    """A ``CausalConv`` that keeps the inputs which later outputs need."""

    def __init__(self, conv: CausalConv) -> None:
        self._conv = conv
        # Read once: the weight is computed from its norm and direction at every access.
        self._weight = conv.conv.weight.detach()
        self._bias = conv.conv.bias.detach()
        self._pending: Tensor | None = None  # starts with the first input of the next output
        self._started = False  # the left padding is part of _pending

    def push(self, x: Tensor, final: bool) -> Tensor:
        if self._pending is not None:
            x = torch.cat([self._pending, x], dim=-1)
        conv = self._conv
        if not self._started:
            if final and x.shape[-1] > 0:
                return self._apply(conv.pad(x))
            if x.shape[-1] <= conv.left:
                self._pending = x.clone()  # the caller may reuse its buffer
                return self._apply(x[..., :0])
            x = F.pad(x, (conv.left, 0, 0, 0), mode="reflect") if conv.left else x
            self._started = True
        elif final and x.shape[-1] > 0:
            # Only whole strides were removed in front, so the last window is short by as much as it
            # is in the whole input.
            right = (conv.left - x.shape[-1]) % conv.stride
            x = F.pad(x, (0, right, 0, 0), mode="reflect") if right else x
        count = max(0, (x.shape[-1] - conv.kernel_size) // conv.stride + 1)
        self._pending = x[..., count * conv.stride :].clone()
        return self._apply(x[..., : count * conv.stride + conv.left] if count else x[..., :0])

    def _apply(self, padded: Tensor) -> Tensor:
        if padded.shape[-1] == 0:
            return padded.new_zeros(padded.shape[0], self._weight.shape[0], 1, 0)
        return convolve(padded, self._weight, self._bias, self._conv.stride)


class _ResidualStream:
    """A ``SeanetResidualBlock`` whose shortcut is delayed to match its narrow path."""

    def __init__(self, block: SeanetResidualBlock) -> None:
        self._narrow = _ConvStream(block.narrow)
        self._widen = _ConvStream(block.widen)
        self._shortcut = _ConvStream(block.shortcut)
        self._waiting: Tensor | None = None

    def push(self, x: Tensor, final: bool) -> Tensor:
        shortcut = self._shortcut.push(x, final)
        if self._waiting is not None:
            shortcut = torch.cat([self._waiting, shortcut], dim=-1)
        y = self._widen.push(F.elu(self._narrow.push(F.elu(x), final)), final)
        self._waiting = shortcut[..., y.shape[-1] :].clone()
        return shortcut[..., : y.shape[-1]] + y


class _LstmStream:
    """An LSTM with a skip that continues from its last state."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm
        self._state: tuple[Tensor, Tensor] | None = None

    def push(self, x: Tensor, final: bool) -> Tensor:
        if x.shape[-1] == 0:  # nn.LSTM refuses empty sequences
            return x
        x = x.squeeze(2).transpose(1, 2)
        y, self._state = self._lstm(x, self._state)
        return (y + x).transpose(1, 2).unsqueeze(2)


def _push_elu(x: Tensor, final: bool) -> Tensor:
    """ELU, which has no state."""
    return F.elu(x)


class _SeanetStream:
    """See ``SeanetEncoder.stream``; a ``Stream``."""

    def __init__(self, encoder: SeanetEncoder) -> None:
        layers: list[Callable[[Tensor, bool], Tensor]] = [_ConvStream(encoder.first).push]
        for stage in cast("Iterable[Stage]", encoder.stages):
            layers.append(_ResidualStream(stage.residual).push)
            layers.append(_push_elu)
            layers.append(_ConvStream(stage.down).push)
        layers.append(_LstmStream(encoder.lstm).push)
        layers.append(_push_elu)
        layers.append(_ConvStream(encoder.last).push)
        self._layers = layers
        # For the reflection on the left at the beginning; later frames need none.
        self.look_ahead_frames = encoder.last.left

    @torch.no_grad()
    def push(self, piece: Tensor, final: bool = False) -> Tensor:
        """Waveform (batch, samples) of any length -> frames that are now final."""
        with torch.autocast(piece.device.type, enabled=False):
            x = as_image(piece.float())
            for layer in self._layers:
                x = layer(x, final)
        return x.squeeze(2)
