"""Pitch from latents: what the harmonic decoder's excitation follows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.backbone import ConvNeXtStack, init_vocos

# The range of voices, in Hz, and its division into classes of 33 cents.
LOWEST, HIGHEST = 50.0, 560.0
_CLASSES = 128
# The estimate is the mean over this many classes on either side of the likeliest.
_NEIGHBOURS = 4
# Width of the target around the true pitch, in classes per octave over its standard deviation.
_SHARPNESS = 48.0


class PitchPredictor(nn.Module):
    """Latent -> fundamental frequency, one value a frame, voiced or not.

    Where there is no voice the value lies between those of the neighbours: the decoder's
    magnitudes say whether a frame is voiced.

    Source: the classes and their local mean are those of CREPE (Kim et al., arXiv 1802.06182).

    Args:
        latent_dim: channels of the latent.
        dim, blocks, kernel_size: of the ConvNeXt stack.
    """

    centres: Tensor

    def __init__(self, latent_dim: int, dim: int, blocks: int, kernel_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(latent_dim, dim, kernel_size, padding=kernel_size // 2)
        self.stack = ConvNeXtStack(dim, 2 * dim, blocks, kernel_size)
        self.out = nn.Linear(dim, _CLASSES)
        self.apply(init_vocos)
        self.context_frames = kernel_size // 2 + self.stack.context_frames
        centres = torch.linspace(math.log2(LOWEST), math.log2(HIGHEST), _CLASSES)
        self.register_buffer("centres", centres, persistent=False)

    def scores(self, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> unnormalised log-probabilities (batch, frames, classes).

        ``mask`` (batch, frames, 1) is 0 beyond an item's end.
        """
        if latent.shape[-1] == 0:
            return latent.new_zeros(latent.shape[0], 0, _CLASSES)
        if mask is not None:
            latent = latent * mask.transpose(1, 2)
        return self.out(self.stack(self.embed(latent).transpose(1, 2), mask))

    @torch.no_grad()
    def forward(self, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> pitch (batch, frames) in octaves above 1 Hz."""
        scores = self.scores(latent, mask)
        best = scores.argmax(dim=-1, keepdim=True)
        distance = (torch.arange(_CLASSES, device=scores.device) - best).abs()
        weights = scores.masked_fill(distance > _NEIGHBOURS, -torch.inf).softmax(dim=-1)
        return (weights * self.centres).sum(dim=-1)

    def loss(self, scores: Tensor, pitch: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy of ``scores`` against a Gaussian of 25 cents around the true pitch.

        Args:
            scores: what ``scores`` returned.
            pitch: (batch, frames), octaves above 1 Hz.
            weight: (batch, frames), how much a frame counts.

        Returns:
            scalar: the weighted mean over frames.
        """
        distance = _SHARPNESS * (self.centres - pitch[..., None])
        target = (-0.5 * distance.square()).softmax(dim=-1)
        entropy = -(target * F.log_softmax(scores, dim=-1)).sum(dim=-1)
        return (weight * entropy).sum() / weight.sum().clamp(min=1)
