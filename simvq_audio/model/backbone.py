"""ConvNeXt blocks at frame rate, the body of both encoder and decoder.

Tensors are (batch, frames, channels), so that every layer but the depthwise convolution is a matrix
product over channels without copies.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.linear import Linear, in_tiles


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, two linear layers with GELU, layer scale, residual.

    Source: Liu et al., "A ConvNet for the 2020s", in one dimension as in Vocos (gemelo-ai/vocos).

    Args:
        look_ahead: frames that the convolution sees beyond its own, at most half its kernel.
    """

    def __init__(
        self, dim: int, hidden_dim: int, kernel_size: int, layer_scale: float, look_ahead: int
    ) -> None:
        super().__init__()
        self.taps = kernel_size // 2 + 1 + look_ahead
        self.dwconv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = Linear(dim, hidden_dim)
        self.pwconv2 = Linear(hidden_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> the same; ``mask`` (batch, frames, 1) zeroes what lies outside.

        The mask turns frames beyond an item's end into zero padding, so an item has the same result
        alone and in a batch with longer ones.
        """
        y = x if mask is None else x * mask
        # As a 2-D convolution of height 1, for which oneDNN's depthwise kernels are faster.
        y = F.conv2d(
            y.transpose(1, 2).unsqueeze(2),
            self.dwconv.weight[..., : self.taps].unsqueeze(2),
            self.dwconv.bias,
            padding=(0, self.dwconv.kernel_size[0] // 2),
            groups=self.dwconv.groups,
        )
        # Taps that are left out make the padding on the right too wide.
        y = y.squeeze(2)[..., : x.shape[1]].transpose(1, 2)
        return in_tiles(self._mix_channels, x.flatten(0, 1), y.flatten(0, 1)).view(x.shape)

    def _mix_channels(self, x: Tensor, y: Tensor) -> Tensor:
        """Both (frames, dim): the block's input, and the same behind the convolution."""
        return x + self.gamma * self.pwconv2(self.pwconv1(self.norm(y), gelu=True))


class ConvNeXtStack(nn.Module):
    """LayerNorm, ``blocks`` ConvNeXt blocks, LayerNorm.

    Linear layers start from a normal of standard deviation 0.02 (truncated) and layer scales from
    1/blocks, as in Vocos.

    Args:
        look_ahead: of the blocks together, which the first ones use up; None: all they reach.

    Attributes:
        context_frames, look_ahead_frames: frames before and after that an output depends on.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        blocks: int,
        kernel_size: int,
        look_ahead: int | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(
                dim,
                hidden_dim,
                kernel_size,
                1 / blocks,
                layer_look_ahead(look_ahead, number, kernel_size),
            )
            for number in range(blocks)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.context_frames = blocks * (kernel_size // 2)
        self.look_ahead_frames = self.context_frames if look_ahead is None else look_ahead

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> the same, ``mask`` as in ``ConvNeXtBlock``."""
        x = self.norm(x)
        for block in self.convnext:
            x = block(x, mask)
        return self.final_layer_norm(x)


def layer_look_ahead(frames: int | None, number: int, kernel_size: int) -> int:
    """How many of ``frames`` layer ``number`` looks ahead: the first layers as far as they can."""
    most = kernel_size // 2
    return most if frames is None else min(most, max(0, frames - number * most))


def init_vocos(module: nn.Module) -> None:
    """Initialise linear and convolution layers as Vocos does; for ``Module.apply``."""
    if isinstance(module, (nn.Conv1d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """(batch,) frame counts -> (batch, total, 1) float mask, 1 inside and 0 beyond the end."""
    return (torch.arange(total, device=frames.device) < frames[:, None]).unsqueeze(2).float()
