"""The compact model's encoder, which works at frame rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.model.backbone import ConvNeXtStack, frame_mask, init_vocos
from simvq_audio.model.config import SpectralEncoderConfig
from simvq_audio.model.frames import FramedStft, frame_count
from simvq_audio.model.linear import Linear, in_tiles
from simvq_audio.model.streaming import Stream, WindowedStream


class SpectralEncoder(nn.Module):
    """STFT -> compressed magnitude, real and imaginary parts -> ConvNeXt blocks -> latent.

    The first layer is linear and could not compute the magnitude from the complex parts; the
    complex parts carry the phase.
    """

    def __init__(self, config: SpectralEncoderConfig, latent_dim: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = latent_dim
        self.hop_length = config.hop_length
        self.stft = FramedStft(config.n_fft, config.hop_length)
        self.bins = config.bins or config.n_fft // 2 + 1
        # Not packed: of sums this long, oneDNN's are rounded seven times as coarsely as MKL's, and
        # more codes would have to be decided in float64.
        self.embed = nn.Linear(3 * self.bins, config.dim)
        self.stack = ConvNeXtStack(
            config.dim,
            config.hidden_dim,
            config.blocks,
            config.kernel_size,
            config.look_ahead_frames,
        )
        self.out = Linear(config.dim, latent_dim)
        self.context_frames = self.stack.context_frames + self.stft.context_frames
        self.look_ahead_frames = self.stack.look_ahead_frames + self.stft.context_frames
        self.apply(init_vocos)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> (batch, latent_dim, frames), frames = ceil(samples / hop_length).

        Args:
            lengths: (batch,) sample counts of items that are shorter than the batch, zero beyond
                their end; each item's frames are then what they would be alone.
        """
        frames = frame_count(waveform.shape[-1], self.hop_length)
        if frames == 0:
            return waveform.new_zeros(waveform.shape[0], self.latent_dim, 0)
        mask = None
        if lengths is not None:
            mask = frame_mask((lengths + self.hop_length - 1) // self.hop_length, frames)
        x = in_tiles(self._embedded, self.stft.frames(waveform).flatten(0, 1))
        x = self.stack(x.view(len(waveform), frames, -1), mask)
        # The latent is float32: codes must not depend on the precision of the last layer.
        with torch.autocast(waveform.device.type, enabled=False):
            return self.out(x.to(torch.promote_types(x.dtype, torch.float32))).transpose(1, 2)

    def _embedded(self, frames: Tensor) -> Tensor:
        """Samples (n, n_fft) -> (n, dim)."""
        with torch.autocast(frames.device.type, enabled=False):
            # The compression below magnifies the rounding of quiet bins, which in float32 comes
            # from the loud ones: codes would depend on the library that transforms.
            precise = torch.float32 if frames.device.type == "mps" else torch.float64
            spectrum = self.stft.spectra(frames.to(precise))[:, : self.bins]
            real, imaginary = torch.view_as_real(spectrum).to(frames.dtype).unbind(-1)
            magnitude = (real.square() + imaginary.square()).clamp(min=1e-10).sqrt()
            compressed = magnitude**self.config.compression
            scale = compressed / magnitude
            features = torch.cat([compressed, real * scale, imaginary * scale], dim=-1)
        return self.embed(features)

    def stream(self) -> Stream:
        """A stream from waveform (batch, samples) to latent, exact for any pieces."""
        return WindowedStream(self, self.context_frames, self.hop_length, 1, self.look_ahead_frames)
