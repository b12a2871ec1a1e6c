"""Codes that do not depend on how a recording was batched, cut or computed.

In float32 the last bits of a latent depend on the shape of the batch, on threads and processor.
Where two entries of the codebook are almost equally far from it, those bits would decide the code.
Such frames, about one in a thousand, are computed again in float64, whose rounding is a hundred
million times finer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.encoder import SpectralEncoder
from simvq_audio.model.frames import frame_count
from simvq_audio.model.quantizers.base import TableQuantizer
from simvq_audio.model.quantizers.nearest import nearest_with_margins

# Margins below this multiple of float32's rounding of the distances are looked at again. Over
# 10 000 frames of speech the error of a margin was at most 11 of these units, and above 5 in ten.
_UNITS = 32.0


class TieBreaker:
    """Gives the codes of float64 at nearly the cost of float32.

    Models whose encoder sees without bounds, or without a single table of entries, get the codes of
    float32.
    """

    def __init__(self, model: Autoencoder) -> None:
        self._encoder: Any = model.encoder
        self._quantizer: Any = model.quantizer
        self._hop = model.config.hop_length
        self._applies = isinstance(self._encoder, SpectralEncoder) and isinstance(
            self._quantizer, TableQuantizer
        )
        self._precise: tuple[Any, Any] | None = None

    def encode(self, latent: Tensor, windows: Sequence[Tensor], first: int = 0) -> Tensor:
        """The codes of a latent.

        Args:
            latent: (batch, latent_dim, frames) float32.
            windows: of each item the samples at the model's rate, (samples,), that its latent was
                made of. They begin with a whole frame, reach back as far as the encoder sees, and
                forward as far or to the end of the recording.
            first: how many frames of the windows come before those of the latent.

        Returns:
            indices as ``Quantizer.encode`` gives them. Those beyond the end of an item's window
            mean nothing.
        """
        quantizer = self._quantizer
        if not self._applies or latent.shape[-1] == 0:
            return quantizer.encode(latent)
        with torch.autocast(latent.device.type, enabled=False):
            vectors = latent.float().transpose(1, 2)
            entries, half_norms = quantizer.codebook_and_norms()
            flat = vectors.reshape(-1, vectors.shape[-1])
            indices, margins = nearest_with_margins(flat, entries, half_norms)
            largest = half_norms.max()
            rounding = 2.0**-24 * (flat.norm(dim=1) * (2 * largest).sqrt() + largest)
            close = (margins < _UNITS * rounding).view(vectors.shape[:2]).cpu()
        indices = indices.view(vectors.shape[:2])
        hop = self._hop
        for row in close.any(dim=1).nonzero().flatten().tolist():
            window = windows[row]
            total = frame_count(len(window), hop)
            frames = [f for f in (close[row].nonzero().flatten() + first).tolist() if f < total]
            for start, end, own in _runs(frames, self._encoder.context_frames):
                codes = self._in_double(window[start * hop : end * hop])
                own_codes = codes[[frame - start for frame in own]]
                indices[row, [frame - first for frame in own]] = own_codes.to(indices.device)
        return indices

    def _in_double(self, samples: Tensor) -> Tensor:
        """(samples,) -> the codes of all of their frames."""
        if self._precise is None:
            # What has no float64 lends its part to the CPU.
            place = torch.device("cpu") if samples.device.type == "mps" else samples.device
            # Tensors made under inference mode lack what the quantiser's cache looks at.
            with torch.inference_mode(False):
                encoder = copy.deepcopy(self._encoder).to(place).double()
                quantizer = copy.deepcopy(self._quantizer).to(place).double()
            self._precise = encoder, quantizer
        encoder, quantizer = self._precise
        place = next(encoder.parameters()).device
        latent = encoder(samples[None].to(place).double())
        return quantizer.search(latent.transpose(1, 2))[0]


def _runs(frames: list[int], context: int) -> Iterator[tuple[int, int, list[int]]]:
    """Gather frames whose surroundings overlap.

    Yields:
        (first frame, frame behind the last, those of ``frames`` within), ascending.
    """
    run: list[int] = []
    for frame in frames:
        if run and frame - run[-1] > 2 * context:
            yield max(0, run[0] - context), run[-1] + context + 1, run
            run = []
        run.append(frame)
    if run:
        yield max(0, run[0] - context), run[-1] + context + 1, run
