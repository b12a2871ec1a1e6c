"""The decoder: ConvNeXt blocks and an inverse STFT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.attention_prenet import AttentionPrenet
from simvq_audio.model.backbone import ConvNeXtStack, frame_mask, init_vocos, layer_look_ahead
from simvq_audio.model.config import VocosDecoderConfig
from simvq_audio.model.frames import IstftHead
from simvq_audio.model.streaming import Stream, WindowedStream

# Context on both sides of a piece if the receptive field is not finite.
OVERLAP_FRAMES = 150
# Matrix products of fewer rows than this may be rounded otherwise than larger ones: measured below
# 4 rows on one thread, 8 on two, 16 with packed weights. Fewer frames are padded to so many, so
# that a frame has the same samples to the bit in any piece or batch.
_LEAST_FRAMES = 64


class VocosDecoder(nn.Module):
    """Latent -> Conv1d -> (attention prenet) -> ConvNeXt stack -> inverse STFT -> waveform.

    Source: Vocos (gemelo-ai/vocos); the prenet is WavTokenizer's.
    """

    def __init__(self, config: VocosDecoderConfig, latent_dim: int) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        kernel = config.kernel_size
        self.embed = nn.Conv1d(latent_dim, config.dim, kernel, padding=kernel // 2)
        self.prenet = AttentionPrenet(config.dim) if config.attention_prenet else None
        ahead = config.look_ahead_frames
        first = layer_look_ahead(ahead, 0, kernel)
        self.taps = kernel // 2 + 1 + first  # of the first layer that are used
        rest = None if ahead is None else ahead - first
        self.stack = ConvNeXtStack(config.dim, config.hidden_dim, config.blocks, kernel, rest)
        self.head = IstftHead(config.dim, config.n_fft, config.hop_length)
        for part in (self.embed, self.stack, self.head):
            part.apply(init_vocos)
        self.finite = self.prenet is None
        self.context_frames = (
            kernel // 2 + self.stack.context_frames + self.head.context_frames
            if self.finite
            else OVERLAP_FRAMES
        )
        self.look_ahead_frames = (
            first + self.stack.look_ahead_frames + self.head.context_frames
            if self.finite
            else OVERLAP_FRAMES
        )

    def forward(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> (batch, frames * hop_length) waveform.

        Args:
            frames: (batch,) frame counts of items of unequal length; each item has the samples that
                it would have alone; those beyond its end are undefined.
        """
        batch, _, count = latent.shape
        if count == 0:
            return latent.new_zeros(batch, 0)
        if self.finite and count < _LEAST_FRAMES and not torch.is_grad_enabled():
            latent = F.pad(latent, (0, _LEAST_FRAMES - count))
            if frames is None:
                frames = torch.full((batch,), count, device=latent.device)
            return self(latent, frames)[:, : count * self.hop_length]
        if frames is None:
            return self._decode(latent, None)
        if self.finite:
            return self._decode(latent, frame_mask(frames, latent.shape[-1]))
        # Attention and GroupNorm see the whole utterance: padding would change every frame.
        waveform = latent.new_zeros(latent.shape[0], latent.shape[-1] * self.hop_length)
        for row, (item, count) in enumerate(zip(latent, frames.tolist())):
            waveform[row, : count * self.hop_length] = self(item[None, :, :count])
        return waveform

    def _decode(self, latent: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            latent = latent * mask.transpose(1, 2)
        # As a matrix product, which gives a frame the same bits whatever frames are beside it.
        before = self.embed.kernel_size[0] // 2
        padded = F.pad(latent, (before, self.taps - 1 - before))
        windows = padded.unfold(2, self.taps, 1).transpose(1, 2).flatten(2)
        x = F.linear(windows, self.embed.weight[..., : self.taps].flatten(1), self.embed.bias)
        if self.prenet is not None:
            x = self.prenet(x)
        x = self.stack(x, mask)
        return self.head(x, mask)

    def stream(self) -> Stream:
        """A stream from latent (batch, latent_dim, frames) to waveform.

        Exact for any pieces if the receptive field is finite; otherwise every piece is decoded with
        ``OVERLAP_FRAMES`` frames of context on both sides.
        """
        return WindowedStream(self, self.context_frames, 1, self.hop_length, self.look_ahead_frames)
