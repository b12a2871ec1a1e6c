"""The model: waveform -> encoder -> latent -> quantiser -> codes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simvq_audio.model.config import ModelConfig
from simvq_audio.model.decoder import VocosDecoder
from simvq_audio.model.encoder import SpectralEncoder
from simvq_audio.model.quantizers import Quantized, make_quantizer
from simvq_audio.model.seanet import SeanetEncoder

_ENCODERS: dict[str, Callable[[Any, int], nn.Module]] = {
    "spectral": SpectralEncoder,
    "seanet": SeanetEncoder,
}
PARTS = ("encoder", "quantizer", "decoder")


class Reconstruction(NamedTuple):
    """A training pass.

    Attributes:
        waveform: (batch, samples) as long as the input.
        latent: (batch, latent_dim, frames), before the quantiser.
        quantized: None if the quantiser was bypassed.
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
        # Built before the quantiser, so that equal seeds give equal decoders with any quantiser.
        decoder = VocosDecoder(config.decoder, width)
        self.quantizer = make_quantizer(config.quantizer)
        self.decoder = decoder
        self._frozen: frozenset[str] = frozenset()

    def freeze(self, parts: Iterable[str]) -> None:
        """Freeze some of ``PARTS``: no gradients for their weights, evaluation mode.

        A frozen encoder computes in float32 at any training precision, so that the decoder is
        trained on the codes that it will get.
        """
        self._frozen = frozenset(parts)
        for part in self._frozen:
            getattr(self, part).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Autoencoder:
        """Change mode as ``Module.train`` does; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            getattr(self, part).eval()
        return self

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Code and decode (batch, samples); ``quantize=False`` bypasses the quantiser."""
        coded = {"encoder", "quantizer"} <= self._frozen
        with _constant(waveform) if "encoder" in self._frozen else nullcontext():
            latent = self.encoder(waveform)
        with _constant(waveform) if coded else nullcontext():
            quantized = self.quantizer(latent) if quantize else None
        given = latent if quantized is None else quantized.latent
        decoded = self.decoder(given)
        return Reconstruction(decoded[:, : waveform.shape[-1]], latent, quantized)

    def fold_weight_norm(self) -> None:
        """Compute weights once that are otherwise computed in every pass.

        For a model that only codes: its state is no longer that of a model file.
        """
        if isinstance(self.encoder, SeanetEncoder):
            self.encoder.fold_weight_norm()

    def encode_latent(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> (batch, latent_dim, frames), frames = ceil(samples / hop_length).

        Args:
            lengths: (batch,) sample counts of the items; each is coded as if alone.
        """
        return self.encoder(waveform, lengths)

    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) -> indices int64; ``lengths`` as in encode_latent.

        Indices are (batch, frames), or (batch, codebooks, frames) where a frame has several.
        """
        return self.quantizer.encode(self.encode_latent(waveform, lengths))

    def decode_latent(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> (batch, frames * hop_length).

        Args:
            frames: (batch,) frame counts of the items; each is decoded as if alone.
        """
        return self.decoder(latent, frames)

    def decode(self, indices: Tensor, frames: Tensor | None = None) -> Tensor:
        """Indices as ``encode`` gives them -> (batch, frames * hop_length); ``frames`` as above."""
        return self.decode_latent(self.quantizer.decode(indices), frames)


@contextmanager
def _constant(waveform: Tensor) -> Iterator[None]:
    """No gradients, and float32."""
    with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
        yield
