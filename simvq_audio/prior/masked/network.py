"""A transformer that predicts lost codes from the codes on both sides.

Trained to fill in any subset of codes, it is also the denoiser of an absorbing-state discrete
diffusion (Austin et al., "Structured Denoising Diffusion Models in Discrete State-Spaces", 2021;
Sahoo et al., "Simple and Effective Masked Diffusion Language Models", 2024), so one network
repairs gaps and generates speech.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.errors import ConfigError


@dataclass(frozen=True)
class MaskedShape:
    """Sizes of the network.

    Attributes:
        codebook_size: number of codes.
            embedding: numbers per code at the input.
        taps: neighbours on each side that the first layer sees next to a frame.
        width: of the residual stream; a multiple of twice the number of heads.
        layers: transformer blocks.
        heads: of attention.
        hidden: of a block's feed-forward network.
        query: numbers per code at the output.

    Raises:
        ConfigError: a size is out of range.
    """

    codebook_size: int = 8192
    embedding: int = 32
    taps: int = 2
    width: int = 160
    layers: int = 3
    heads: int = 4
    hidden: int = 640
    query: int = 80

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = (0, 16) if field.name == "taps" else (1, 1 << 16)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{field.name} must be {low} to {high}, not {value!r}")
        if self.layers > 64:
            raise ConfigError(f"layers must be 1 to 64, not {self.layers}")
        if self.width % (2 * self.heads):
            raise ConfigError(f"a width of {self.width} does not split into {self.heads} heads")

    @property
    def parameters(self) -> int:
        """Numbers in the network."""
        tables = self.codebook_size * (self.embedding + self.query + 1) + self.embedding
        first = self.width * self.embedding * (1 + 2 * self.taps)
        block = self.width * (4 * self.width + 2 * self.hidden + 2)
        return tables + first + self.layers * block + self.width * (1 + self.query)


class MaskedPrior(nn.Module):
    """Probabilities of lost codes, given the others.

    Positions are rotary, so any number of frames can be given; it was trained on crops of
    ``recipes/repair/train.py``'s length.

    Args:
        shape: of the network.
    """

    def __init__(self, shape: MaskedShape) -> None:
        super().__init__()
        self.shape = shape
        w = shape.width
        # The last row stands for a lost code.
        self.embedding = nn.Parameter(torch.randn(shape.codebook_size + 1, shape.embedding) * 0.05)
        self.first = nn.Linear(shape.embedding * (1 + 2 * shape.taps), w, bias=False)
        self.blocks = nn.ModuleList(
            _Block(w, shape.heads, shape.hidden) for _ in range(shape.layers)
        )
        self.norm = nn.RMSNorm(w)
        self.to_query = nn.Linear(w, shape.query, bias=False)
        self.entries = nn.Parameter(torch.randn(shape.codebook_size, shape.query) * 0.02)
        self.bias = nn.Parameter(torch.zeros(shape.codebook_size))
        nn.init.zeros_(self.to_query.weight)

    def hidden(self, codes: Tensor, lost: Tensor) -> Tensor:
        """The state of each frame, for ``logits``.

        Args:
            codes: int64 (batch, frames); any value where lost.
            lost: bool (batch, frames).

        Returns:
            (batch, frames, width).
        """
        shape, frames = self.shape, codes.shape[1]
        x = F.embedding(codes.masked_fill(lost, shape.codebook_size), self.embedding)
        padded = F.pad(x, (0, 0, shape.taps, shape.taps))
        x = torch.cat([padded[:, i : i + frames] for i in range(1 + 2 * shape.taps)], dim=2)
        x = self.first(x).float()  # the residual stream stays float32 under autocast
        turn = _rotations(frames, shape.width // shape.heads, x.device)
        for block in self.blocks:
            x = block(x, turn)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., codes) float32, unnormalised log probabilities."""
        return F.linear(self.to_query(hidden), self.entries, self.bias).float()

    def forward(self, codes: Tensor, lost: Tensor) -> Tensor:
        """Log probabilities, unnormalised, of the lost codes, in order: (lost frames, codes)."""
        return self.logits(self.hidden(codes, lost)[lost])


class _Block(nn.Module):
    """Attention over all frames, then a feed-forward network, each after a norm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, frames, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, frames, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = (_rotate(F.rms_norm(part, part.shape[-1:]), turn) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, frames, width))
        return x + self.down(F.relu(self.up(self.norms[1](x))).square())


def _rotations(frames: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, (frames, size / 2) each."""
    rates = 1000.0 ** -(torch.arange(0, size, 2, device=device) / size)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part.to(x.dtype) for part in turn)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
