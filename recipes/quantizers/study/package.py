"""The baselines: quantisers of vector-quantize-pytorch (lucidrains, MIT), none written again.

Each is made as the package's documentation has it, with a straight-through gradient and a
commitment weight of 0.25 where it can be chosen, and started from the same latents as ours.
"""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor, nn

from simvq_audio.model.config import QuantizerConfig
from simvq_audio.model.nearest import nearest_entries
from simvq_audio.model.quantizer import Quantized, SimVQ
from simvq_audio.training.quantizer_start import match_codebook_to_latents
from study.bottleneck import Bottleneck, draw_entries, fit_projections
from study.ours import missing_package

try:
    import vector_quantize_pytorch as vqp
except ImportError as error:
    raise missing_package() from error

_COMMITMENT = 0.25
# An entry that is hit this much more rarely than the mean is given to another latent. With the
# decay of 0.95 this is one that was not hit for 45 steps.
_DEAD_SHARE = 0.1
_DECAY = 0.95
# Full probabilities of 450 frames over 65 536 codes take 1.5 s a step; the package's answer to this
# is to take the entropies over a part of the frames.
_LFQ_ALL_FRAMES_UP_TO = 8192
_LFQ_SHARE = 0.25


class _Searched(Bottleneck):
    """A quantiser with a table of entries."""

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """The codes that the package gives in evaluation mode, without its K x frames copies."""
        flat = latent.transpose(1, 2).reshape(-1, latent.shape[1])
        indices = nearest_entries(flat, self.quantizer.codebook)
        return indices.view(latent.shape[0], latent.shape[2])


class _Asked(Bottleneck):
    """A quantiser whose codes come from its own forward pass, in evaluation mode."""

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        training = self.quantizer.training
        self.quantizer.eval()
        indices = self(latent).indices
        self.quantizer.train(training)
        return indices


class Table(_Searched):
    """``VectorQuantize``: a free table of entries.

    Args:
        ema: entries are moving averages of what fell to them, and dead ones are placed anew;
            otherwise the table learns by gradient and nothing is placed anew.
    """

    def __init__(
        self, codebook_size: int, latent_dim: int, *, ema: bool, fast: bool = False
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.fast = fast
        kinds = (
            # Any threshold above zero switches the replacement on; start() sets it.
            {"decay": _DECAY, "threshold_ema_dead_code": 1e-3, "eps": 1e-7}
            if ema
            else {"learnable_codebook": True, "ema_update": False}
        )
        self.quantizer = vqp.VectorQuantize(
            latent_dim,
            codebook_size,
            rotation_trick=False,
            commitment_weight=_COMMITMENT,
            **kinds,
        )

    def forward(self, latent: Tensor) -> Quantized:
        return _quantized(self.quantizer(latent.transpose(1, 2)))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        return self.quantizer.get_output_from_indices(indices).transpose(1, 2)

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        place_entries(self.quantizer, draw_entries(latents, self.codebook_size, generator), frames)


class Residual(_Asked):
    """``ResidualVQ`` of two stages with EMA and replacement; sizes near the square root of K.

    The two codes of a frame count as one below K.
    """

    def __init__(self, codebook_size: int, latent_dim: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        bits = round(log2(codebook_size))
        self._sizes = (2 ** -(-bits // 2), 2 ** (bits // 2))
        self.quantizer = vqp.ResidualVQ(
            dim=latent_dim,
            codebook_size=self._sizes,
            rotation_trick=False,
            commitment_weight=_COMMITMENT,
            decay=_DECAY,
            threshold_ema_dead_code=1e-3,
            eps=1e-7,
        )

    def forward(self, latent: Tensor) -> Quantized:
        return self._joined(self.quantizer(latent.transpose(1, 2)))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        stages = torch.stack([indices // self._sizes[1], indices % self._sizes[1]], dim=-1)
        return self.quantizer.get_output_from_indices(stages).transpose(1, 2)

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        rest = latents
        for size, stage in zip(self._sizes, self.quantizer.layers):
            entries = draw_entries(rest, size, generator)
            place_entries(stage, entries, frames)
            rest = rest - entries[nearest_entries(rest, entries)]

    def _joined(self, result: tuple[Tensor, ...]) -> Quantized:
        quantized = _quantized(result)
        first, second = quantized.indices.unbind(dim=-1)
        return quantized._replace(indices=first * self._sizes[1] + second)


class Projected(_Asked):
    """``FSQ`` or ``LFQ``: fixed entries in few dimensions, between two linear layers.

    FSQ's levels are 8 as often as it goes, then 4, so that their product is K; the paper (arXiv
    2309.15505) recommends at least 5 of them, but has no set of exactly these sizes.
    """

    fast = False

    def __init__(self, codebook_size: int, latent_dim: int, *, kind: str) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        if kind == "fsq":
            self.quantizer = vqp.FSQ(fsq_levels(codebook_size), dim=latent_dim)
        else:
            every_frame = codebook_size <= _LFQ_ALL_FRAMES_UP_TO
            self.quantizer = vqp.LFQ(
                dim=latent_dim,
                codebook_size=codebook_size,
                commitment_loss_weight=_COMMITMENT,
                frac_per_sample_entropy=1.0 if every_frame else _LFQ_SHARE,
            )

    def forward(self, latent: Tensor) -> Quantized:
        return _quantized(self.quantizer(latent.transpose(1, 2)))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        return self.quantizer.indices_to_codes(indices).transpose(1, 2)

    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        training = self.quantizer.training
        self.quantizer.eval()
        fit_projections(
            self.quantizer.project_in,
            self.quantizer.project_out,
            latents,
            self.quantizer,
            rotation=generator if isinstance(self.quantizer, vqp.LFQ) else None,
        )
        self.quantizer.train(training)


class PackageSimvq(_Searched):
    """The package's ``SimVQ`` with its defaults: no bias, Gaussian C, rotation trick."""

    def __init__(self, codebook_size: int, latent_dim: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.quantizer = vqp.SimVQ(latent_dim, codebook_size)

    def forward(self, latent: Tensor) -> Quantized:
        return _quantized(self.quantizer(latent.transpose(1, 2)))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        return self.quantizer.indices_to_codes(indices).transpose(1, 2)

    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        weight = self.quantizer.code_transform.weight
        # Its size does not matter: W follows from the latents alone.
        ours = SimVQ(QuantizerConfig(2, weight.shape[1], bias=False)).to(weight.device)
        match_codebook_to_latents(ours, latents.T[None])
        weight.data.copy_(ours.proj.weight)


def fsq_levels(codebook_size: int) -> list[int]:
    """Levels whose product is the codebook's size, a power of two from 64 on: 8s, then 4s."""
    bits = round(log2(codebook_size))
    fours = {0: 0, 1: 2, 2: 1}[bits % 3]
    return [8] * ((bits - 2 * fours) // 3) + [4] * fours


def place_entries(quantizer: nn.Module, entries: Tensor, frames: int) -> None:
    """Set a ``VectorQuantize``'s table, and its averages as if the entries were hit evenly.

    Args:
        entries: (K, latent_dim).
        frames: latents in a training step.
    """
    book = quantizer._codebook
    share = frames / len(entries)
    book.embed.data.copy_(entries[None])
    book.embed_avg.data.copy_(entries[None] * share)
    book.cluster_size.data.fill_(share)
    if book.has_dead_code_replacement:
        book.threshold_ema_dead_code = _DEAD_SHARE * share
        book.reset_cluster_size = share


def _quantized(result: tuple[Tensor, ...]) -> Quantized:
    """The package's results as ours; FSQ has no loss, ResidualVQ one a stage."""
    entries, indices = result[0], result[1]
    loss = result[2].sum() if len(result) > 2 else entries.new_zeros(())
    return Quantized(entries.transpose(1, 2), indices.long(), loss)
