"""Residual blocks around self-attention, in front of the published decoder's ConvNeXt stack."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# As in the published training code; no effect in evaluation mode.
_DROPOUT = 0.1


def _group_norm(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, dim, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution of kernel 3, twice, and a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = _group_norm(dim)
        self.conv1 = nn.Conv1d(dim, dim, 3, padding=1)
        self.norm2 = _group_norm(dim)
        self.dropout = nn.Dropout(_DROPOUT)
        self.conv2 = nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim, frames) -> the same."""
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(self.dropout(F.silu(self.norm2(y))))


class SelfAttention(nn.Module):
    """GroupNorm, one head of attention over all frames without positions, and a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = _group_norm(dim)
        self.q = nn.Conv1d(dim, dim, 1)
        self.k = nn.Conv1d(dim, dim, 1)
        self.v = nn.Conv1d(dim, dim, 1)
        self.proj_out = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim, frames) -> the same."""
        y = self.norm(x)
        # (batch, 1 head, frames, dim): fused kernels do not store all frames x frames weights.
        q, k, v = (layer(y).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(y.squeeze(1).transpose(1, 2))


class AttentionPrenet(nn.Module):
    """Two residual blocks, self-attention, two residual blocks, GroupNorm.

    Attention and GroupNorm see every frame of the utterance: there is no finite receptive field,
    and padding would change every frame.

    Source: WavTokenizer (jishengpeng/WavTokenizer, arXiv 2408.16532), as used by the published
    SimVQ audio model. ``dim`` must be a multiple of 32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.before = nn.Sequential(ResidualBlock(dim), ResidualBlock(dim))
        self.attention = SelfAttention(dim)
        self.after = nn.Sequential(ResidualBlock(dim), ResidualBlock(dim))
        self.norm = _group_norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> the same."""
        y = self.after(self.attention(self.before(x.transpose(1, 2))))
        return self.norm(y).transpose(1, 2)
