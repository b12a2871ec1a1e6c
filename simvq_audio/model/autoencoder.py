"""The model: waveform -> encoder -> latent -> SimVQ -> codes, and back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from simvq_audio.model.config import ModelConfig, SeanetEncoderConfig, SpectralEncoderConfig
from simvq_audio.model.decoder import Decoder
from simvq_audio.model.encoder import SpectralEncoder
from simvq_audio.model.quantizer import Quantized, SimVQ
from simvq_audio.model.seanet import SeanetEncoder

_ENCODERS = {
    SpectralEncoderConfig.kind: SpectralEncoder,
    SeanetEncoderConfig.kind: SeanetEncoder,
}


class Reconstruction(NamedTuple):
    """A training pass.

    Attributes:
        waveform: (batch, samples) as long as the input.
        latent: (batch, latent_dim, frames), before the quantiser.
        quantized: None where the quantiser was passed by.
    """

    waveform: Tensor
    latent: Tensor
    quantized: Quantized | None


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder that a ``ModelConfig`` describes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.quantizer.latent_dim
        self.encoder = _ENCODERS[config.encoder.kind](config.encoder, width)
        self.quantizer = SimVQ(config.quantizer)
        self.decoder = Decoder(config.decoder, width)

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Code and decode (batch, samples); with ``quantize=False`` the latent goes through."""
        latent = self.encoder(waveform)
        quantized = self.quantizer(latent) if quantize else None
        decoded = self.decoder(latent if quantized is None else quantized.latent)
        return Reconstruction(decoded[:, : waveform.shape[-1]], latent, quantized)

    def encode_latent(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> (batch, latent_dim, frames), frames = ceil(samples / hop_length).

        Args:
            lengths: (batch,) sample counts of the items; each is coded as it would be alone.
        """
        return self.encoder(waveform, lengths)

    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> indices (batch, frames) int64; ``lengths`` as in encode_latent."""
        return self.quantizer.encode(self.encode_latent(waveform, lengths))

    def decode_latent(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> (batch, frames * hop_length).

        Args:
            frames: (batch,) frame counts of the items; each is decoded as it would be alone.
        """
        return self.decoder(latent, frames)

    def decode(self, indices: Tensor, frames: Tensor | None = None) -> Tensor:
        """Indices (batch, frames) -> (batch, frames * hop_length); ``frames`` as above."""
        return self.decode_latent(self.quantizer.decode(indices), frames)
