"""Pitch: predicted from latents for the harmonic decoder, measured in recordings to train it."""

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
# Measuring: a window holds three periods of the lowest pitch. A frame is voiced where the
# normalised autocorrelation and its level, relative to the loudest frame, are above these.
_PERIODS = 3
_VOICED, _AUDIBLE = 0.45, 0.01
# What a lag of an octave more costs, so that a period is not taken for two.
_OCTAVE_COST = 0.01
# Voiced frames count fully, those within this distance of voice a little, the rest hardly.
_NEAR_FRAMES, _NEAR_WEIGHT, _FAR_WEIGHT = 15, 0.15, 0.02


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
        return self.estimate(self.scores(latent, mask))

    @torch.no_grad()
    def estimate(self, scores: Tensor) -> Tensor:
        """What ``scores`` returned -> pitch (batch, frames) in octaves above 1 Hz."""
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


def measure_pitch(waveform: Tensor, hop_length: int, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Fundamental frequency by autocorrelation.

    Source: Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound" (1993), without its search for the best path; a
    median over five frames takes out single errors.

    Args:
        waveform: (batch, samples).

    Returns:
        Pitch (batch, frames) in octaves above 1 Hz, one value in the middle of each hop, and
        which frames are voiced, bool.
    """
    window = 2 * (_PERIODS * round(sample_rate / LOWEST) // 2)
    frames = -(-waveform.shape[-1] // hop_length)
    before = (window - hop_length) // 2
    after = (frames - 1) * hop_length + window - before - waveform.shape[-1]
    x = F.pad(waveform.float(), (before, after)).unfold(-1, window, hop_length)
    x = x - x.mean(dim=-1, keepdim=True)
    taper = torch.hann_window(window, device=x.device)
    shortest, longest = int(sample_rate / HIGHEST), int(sample_rate / LOWEST) + 1
    own = _autocorrelation(taper, longest + 1)
    correlation = _autocorrelation(x * taper, longest + 1)
    energy = correlation[..., :1].clamp(min=1e-12)
    strength = (correlation / energy) / (own / own[0])
    lags = torch.arange(shortest, longest, device=x.device)
    candidates = strength[..., shortest:longest]
    best = (candidates - _OCTAVE_COST * torch.log2(lags.float())).argmax(dim=-1, keepdim=True)
    index = best + shortest
    left, peak, right = (strength.gather(-1, index + shift)[..., 0] for shift in (-1, 0, 1))
    # The vertex of the parabola through the peak and its neighbours.
    curve = (left - 2 * peak + right).clamp(max=-1e-9)
    lag = index[..., 0] + (0.5 * (left - right) / curve).clamp(-0.5, 0.5)
    pitch = torch.log2(sample_rate / lag)
    level = energy[..., 0] / energy[..., 0].amax(dim=-1, keepdim=True)
    voiced = (peak > _VOICED) & (level > _AUDIBLE**2) & (energy[..., 0] > 1e-6)
    if frames > 4:
        smooth = F.pad(pitch[:, None], (2, 2), mode="replicate")[:, 0].unfold(-1, 5, 1)
        pitch = smooth.median(dim=-1).values
    return pitch, voiced


def bridge_unvoiced(pitch: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate pitch where there is no voice; both (batch, frames).

    Returns:
        Pitch, and the weight of each frame in ``PitchPredictor.loss``: 0 throughout an item
        without voice.
    """
    frames = torch.arange(pitch.shape[1], device=pitch.device).expand_as(pitch)
    last = torch.where(voiced, frames, -1).cummax(dim=1).values
    following = torch.where(voiced, frames, pitch.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    has_last, has_next = last >= 0, following < pitch.shape[1]
    before = pitch.gather(1, last.clamp(min=0))
    after = pitch.gather(1, following.clamp(max=pitch.shape[1] - 1))
    before = torch.where(has_last, before, after)
    after = torch.where(has_next, after, before)
    share = (frames - last) / (following - last).clamp(min=1)
    share = torch.where(has_last & has_next, share, 0.5)
    bridged = before + (after - before) * share
    far = pitch.shape[1]
    distance = torch.minimum(
        torch.where(has_last, frames - last, far), torch.where(has_next, following - frames, far)
    )
    near = torch.where(distance <= _NEAR_FRAMES, _NEAR_WEIGHT, _FAR_WEIGHT)
    weight = torch.where(voiced, 1.0, near) * voiced.any(dim=1, keepdim=True)
    return torch.where(voiced, pitch, bridged), weight


def _autocorrelation(x: Tensor, lags: int) -> Tensor:
    """(..., samples) -> (..., lags)."""
    size = 2 ** (2 * x.shape[-1] - 1).bit_length()
    return torch.fft.irfft(torch.fft.rfft(x, size).abs().square(), size)[..., :lags]
