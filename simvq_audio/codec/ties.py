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
from simvq_audio.model.quantizers.residual import Residual

# Margins below this multiple of float32's rounding of the distances are looked at again. Over
# 10 000 frames of speech the error of a margin was at most 11 of these units, and above 5 in ten.
_UNITS = 32.0


class TieBreaker:
    """Gives the codes of float64 at nearly the cost of float32.

    Models whose encoder sees without bounds, or without tables of entries, get the codes of
    float32.
    """

    def __init__(self, model: Autoencoder) -> None:
        self._encoder: Any = model.encoder
        self._quantizer: Any = model.quantizer
        self._hop = model.config.hop_length
        self._applies = isinstance(self._encoder, SpectralEncoder) and isinstance(
            self._quantizer, TableQuantizer | Residual
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
        several = isinstance(quantizer, Residual)
        with torch.autocast(latent.device.type, enabled=False):
            vectors = latent.float().transpose(1, 2)
            size = vectors.flatten(0, 1).norm(dim=1)
            rest, found, near = vectors, [], []
            for stage in _stages(quantizer):
                entries, half_norms = stage.codebook_and_norms()
                nearest, margins = nearest_with_margins(rest.flatten(0, 1), entries, half_norms)
                # What a stage leaves has the rounding of the whole latent.
                largest = half_norms.max()
                near.append(margins < _UNITS * 2.0**-24 * (size * (2 * largest).sqrt() + largest))
                found.append(nearest.view(vectors.shape[:2]))
                if several:
                    rest = rest - entries[found[-1]]
            close = torch.stack(near).any(dim=0).view(vectors.shape[:2]).cpu()
        indices = torch.stack(found, dim=1)
        hop = self._hop
        for row in close.any(dim=1).nonzero().flatten().tolist():
            window = windows[row]
            total = frame_count(len(window), hop)
            frames = [f for f in (close[row].nonzero().flatten() + first).tolist() if f < total]
            for start, end, own in _runs(frames, self._encoder.context_frames):
                codes = self._in_double(window[start * hop : end * hop])
                own_codes = codes[:, [frame - start for frame in own]]
                indices[row][:, [frame - first for frame in own]] = own_codes.to(indices.device)
        return indices if several else indices[:, 0]

    def _in_double(self, samples: Tensor) -> Tensor:
        """(samples,) -> (stages, frames): the codes of all of their frames."""
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
        rest = encoder(samples[None].to(place).double()).transpose(1, 2)
        found = []
        for stage in _stages(quantizer):
            found.append(stage.search(rest)[0])
            rest = rest - stage.codebook_and_norms()[0][found[-1]]
        return torch.stack(found)


def _stages(quantizer: TableQuantizer | Residual) -> list[TableQuantizer]:
    """The tables that are searched one after the other."""
    return quantizer._quantizers() if isinstance(quantizer, Residual) else [quantizer]


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
