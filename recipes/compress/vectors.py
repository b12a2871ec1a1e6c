"""Weights in fewer bits by vector quantisation, with calibration and without; and plain rounding.

Decoder: int8; vectors of weights replaced by entries of a codebook for each matrix (VQ), at 4, 3
and 2 bits a weight, with and without calibration; and vectors in few dimensions with a codebook
there. Encoder: whole numbers of 8 to 14 bits.

Sources: Deng et al., "VQ4DiT: Efficient Post-Training Vector Quantization for Diffusion
Transformers" (arXiv 2408.17131): candidates for each assignment, calibrated block by block without
recordings. Zhu et al., "Learning Low-Rank Representations for Model Compression" (arXiv
2211.11397): vectors are projected to few dimensions, where the codebook lies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.prior import prior_for_codes

# Calibration: sequences of codes, their frames, how many are in a step, and steps for a block.
_SEQUENCES, _FRAMES, _BATCH, _STEPS, _HARD_STEPS = 32, 75, 4, 60, 20
_KMEANS_ROUNDS, _KMEANS_VECTORS = 12, 50_000


# -- matrices in fewer bits ----------------------------------------------------------------------


class Rounded(nn.Module):
    """Whole numbers of ``bits`` bits, with a scale for each row."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        flat = weight.flatten(1)
        highest = 2 ** (bits - 1) - 1
        scale = (flat.abs().amax(dim=1, keepdim=True) / highest).half().float().clamp(min=1e-7)
        self.weight = ((flat / scale).round().clamp(-highest, highest) * scale).view_as(weight)
        self.bytes = ceil(flat.numel() * bits / 8) + 2 * len(flat)

    def forward(self) -> Tensor:
        """The weight."""
        return self.weight


class Clustered(nn.Module):
    """Each ``dim`` neighbours in a row are an entry of one codebook, times a scale of the row.

    Args:
        weight: (rows, ...), of which all but the first axis together are a multiple of ``dim``.
        dim: weights that share an index.
        bits: of an index.
        rank: dimensions that the codebook has before a projection to ``dim``; None: no projection.
    """

    def __init__(self, weight: Tensor, dim: int, bits: int, rank: int | None = None) -> None:
        super().__init__()
        self.shape = weight.shape
        flat = weight.flatten(1)
        scale = flat.std(dim=1, keepdim=True)
        vectors = (flat / scale).reshape(-1, dim)
        projection = None
        if rank is not None:
            _, _, axes = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
            projection = axes[:rank].clone()
            vectors = vectors @ projection.T
        entries, nearest, second = _kmeans(vectors, 2**bits)
        self.scale, self.entries = nn.Parameter(scale), nn.Parameter(entries)
        self.projection = None if projection is None else nn.Parameter(projection)
        self.nearest, self.second = nearest, second
        gap = ((vectors - entries[second]) ** 2 - (vectors - entries[nearest]) ** 2).sum(dim=1)
        # How sure the nearest entry is against the second: a logit.
        self.choice: nn.Parameter | None = nn.Parameter(gap / gap.mean().clamp(min=1e-9))
        parameters = [scale, entries] + ([] if projection is None else [projection])
        self.bytes = ceil(len(vectors) * bits / 8) + 2 * sum(p.numel() for p in parameters)

    def forward(self) -> Tensor:
        """The weight; while ``choice`` is there, a mixture of two entries for each vector."""
        vectors = self.entries[self.nearest]
        if self.choice is not None:
            share = torch.sigmoid(self.choice)[:, None]
            vectors = share * vectors + (1 - share) * self.entries[self.second]
        if self.projection is not None:
            vectors = vectors @ self.projection
        return (vectors.reshape(len(self.scale), -1) * self.scale).view(self.shape)

    def doubt(self) -> Tensor:
        """How far the mixtures are from one entry, 0 to 1."""
        share = torch.sigmoid(self.choice)
        return (4 * share * (1 - share)).mean()

    def settle(self, calibrated: bool) -> None:
        """Take the better entry of each pair, or if nothing was calibrated the nearest."""
        if calibrated:
            self.nearest = torch.where(self.choice >= 0, self.nearest, self.second)
        self.choice = None


def _kmeans(vectors: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Entries (size, dim), and the nearest and second nearest of each vector."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(vectors), generator=generator)[:_KMEANS_VECTORS]
    sample = vectors[chosen]
    entries = sample[:size].clone()
    for _ in range(_KMEANS_ROUNDS):
        cell = _nearest(sample, entries, 1)[:, 0]
        counts = torch.bincount(cell, minlength=size)
        sums = torch.zeros_like(entries).index_add_(0, cell, sample)
        used = counts > 0
        entries[used] = sums[used] / counts[used, None]
    both = _nearest(vectors, entries, 2)
    return entries, both[:, 0], both[:, 1]


def _nearest(vectors: Tensor, entries: Tensor, count: int) -> Tensor:
    norms = 0.5 * entries.square().sum(dim=1)
    parts = [(part @ entries.T - norms).topk(count, dim=1).indices for part in vectors.split(8192)]
    return torch.cat(parts)


# -- models in fewer bits ------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A way to keep weights.

    Attributes:
        name: in the table.
        part: "decoder" or "encoder".
        compress: of a matrix of the ConvNeXt stack; other matrices are int8 in the decoder, and as
            these in the encoder.
        calibrated: whether blocks are adjusted to what they gave before.
    """

    name: str
    part: str
    compress: Callable[[Tensor], Rounded | Clustered]
    calibrated: bool = False


def variants() -> list[Variant]:
    """All rows of the table; bits a weight are bits of an index over its dimensions."""

    def rounded(bits: int) -> Callable[[Tensor], Rounded]:
        return lambda weight: Rounded(weight, bits)

    def clustered(dim: int, bits: int, rank: int | None = None) -> Callable[[Tensor], Clustered]:
        return lambda weight: Clustered(weight, dim, bits, rank)

    found = [Variant(f"encoder {n} bit", "encoder", rounded(n)) for n in (8, 10, 12, 13, 14)]
    found.append(Variant("decoder int8", "decoder", rounded(8)))
    for calibrated in (False, True):
        for bits, dim, index_bits in ((4, 2, 8), (3, 2, 6), (2, 4, 8)):
            name = f"decoder VQ {bits} bit" + (", calibrated" if calibrated else "")
            found.append(Variant(name, "decoder", clustered(dim, index_bits), calibrated))
    for rank in (4, 2):
        name = f"decoder VQ 2 bit, {rank} of 6 dimensions, calibrated"
        found.append(Variant(name, "decoder", clustered(6, 12, rank), True))
    return found


def compressed(model: Autoencoder, variant: Variant, codes: Tensor) -> tuple[Autoencoder, float]:
    """A copy of the model with a part in fewer bits, and that part's bytes.

    What is no matrix (biases, norms, depthwise kernels) counts as float16.

    Args:
        codes: (sequences, frames) for calibration.
    """
    result = copy.deepcopy(model)
    part = getattr(result, variant.part)
    size = 0.0
    matrices = {
        name: layer
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d) and layer.groups == 1)
    }
    in_blocks = {name for name in matrices if ".convnext." in f".{name}"}
    for name in matrices.keys() - in_blocks:
        small = variant.part == "decoder"
        held = (
            Rounded(matrices[name].weight, 8) if small else variant.compress(matrices[name].weight)
        )
        matrices[name].weight.data = held().detach()
        size += held.bytes
    before, after = part, None
    if variant.calibrated:
        before, after = _stack_inputs(model, result, codes)
    for i, block in enumerate(part.stack.convnext):
        held = {name: variant.compress(getattr(block, name).weight) for name in _BLOCK}
        if variant.calibrated:
            target = model.decoder.stack.convnext[i]
            before, after = _calibrate(block, target, held, before, after)
        for name, tables in held.items():
            if isinstance(tables, Clustered) and tables.choice is not None:
                tables.settle(calibrated=False)
            getattr(block, name).weight.data = tables().detach()
            size += tables.bytes
    others = set(part.state_dict()) - {f"{name}.weight" for name in matrices}
    size += 2 * sum(part.state_dict()[name].numel() for name in others)
    return result, size


_BLOCK = ("pwconv1", "pwconv2")


def _stack_inputs(model: Autoencoder, result: Autoencoder, codes: Tensor) -> tuple[Tensor, Tensor]:
    """What reaches the first block, of the model as it was and as it is."""
    found = []
    with torch.no_grad():
        for each in (model, result):
            latent = model.quantizer.decode(codes)
            found.append(each.decoder.stack.norm(each.decoder.embed(latent).transpose(1, 2)))
    return found[0], found[1]


def _calibrate(
    block: nn.Module,
    target: nn.Module,
    held: dict[str, Clustered],
    before: Tensor,
    after: Tensor,
) -> tuple[Tensor, Tensor]:
    """Adjust a block so that it gives what it gave before; return what reaches the next one.

    Args:
        before: (sequences, frames, dim), what the block got in the model as it was.
        after: what it gets now.
    """
    with torch.no_grad():
        wanted = target(before)
        power = (wanted - before).square().mean()
    own = [p for n, p in block.named_parameters() if n.removesuffix(".weight") not in _BLOCK]
    for parameter in own:
        parameter.requires_grad_(True)
    tables = [p for each in held.values() for n, p in each.named_parameters() if n != "choice"]
    choices = [each.choice for each in held.values()]
    optimizer = torch.optim.Adam(
        [
            {"params": tables, "lr": 2e-3},
            {"params": own, "lr": 2e-4},
            {"params": choices, "lr": 5e-2},
        ]
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(_STEPS + _HARD_STEPS):
        if step == _STEPS:
            for each in held.values():
                each.settle(calibrated=True)
        rows = torch.randint(len(after), (_BATCH,), generator=generator)
        weights = {f"{name}.weight": each() for name, each in held.items()}
        output = torch.func.functional_call(block, weights, (after[rows],))
        loss = F.mse_loss(output, wanted[rows]) / power
        if step < _STEPS:
            doubt = sum(each.doubt() for each in held.values())
            loss = loss + 0.2 * (step / _STEPS) * doubt
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for parameter in own:
        parameter.requires_grad_(False)
        # As it is stored.
        parameter.data = parameter.data.half().float()
    for each in held.values():
        for parameter in each.parameters():
            parameter.data = parameter.data.half().float()
    with torch.no_grad():
        weights = {f"{name}.weight": each() for name, each in held.items()}
        return wanted, torch.func.functional_call(block, weights, (after,))


def sampled_codes(codes_id: str, size: int) -> Tensor:
    """(sequences, frames) of codes as the prior finds them likely; without a prior, of any."""
    random = np.random.default_rng(0)
    prior = prior_for_codes(codes_id)
    if prior is None:
        return torch.from_numpy(random.integers(0, size, (_SEQUENCES, _FRAMES)))

    def draw(tables: np.ndarray) -> np.ndarray:
        slots = random.integers(0, 65536, (len(tables), 1))
        return (np.cumsum(tables, axis=1) <= slots).sum(axis=1)

    state = prior.start(_SEQUENCES)
    codes = np.empty((_SEQUENCES, _FRAMES), np.int64)
    for frame in range(_FRAMES):
        cluster = draw(state.clusters(_SEQUENCES))
        codes[:, frame] = prior.tree[cluster, draw(state.members(cluster))]
        state.push(codes[:, frame])
    return torch.from_numpy(codes)
