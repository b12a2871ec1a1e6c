"""The prior in training: float32 with the rounding of its integer evaluation.

``simvq_audio/prior/causal.py`` evaluates the same network in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Fractional bits, fixed for all priors: 5 in activations (0 to 255) and embeddings (-127 to 127), 8
# in the residual stream, 5 in logits (in nats).
ACTIVATION_PLACES = 5
STREAM_PLACES = 8
LOGIT_PLACES = 5
MAX_WEIGHT = 127


@dataclass(frozen=True)
class PriorShape:
    """Sizes of the network; ``dilations`` has one entry per residual layer."""

    codebook_size: int = 8192
    clusters: int = 128
    embedding: int = 48
    taps: int = 4
    width: int = 192
    dilations: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    query: int = 128

    @classmethod
    def for_codebook(cls, size: int) -> PriorShape:
        """Sizes with which the prior file stays under 3 MB."""
        if size <= 8192:
            return cls(codebook_size=size)
        return cls(codebook_size=size, clusters=256, embedding=16, query=20)


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, places: int) -> Tensor:
        return torch.floor(x * 2.0**places + 0.5) * 2.0**-places

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def weight_places(weight: Tensor) -> Tensor:
    """Fractional bits per row, (rows, 1), with which its largest weight fits int8."""
    largest = weight.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-6)
    return torch.floor(torch.log2(MAX_WEIGHT / largest)).clamp(3, 12)


def round_weight(weight: Tensor) -> Tensor:
    """``weight`` as int8 with a power of two per row, gradient straight through."""
    scale = torch.exp2(weight_places(weight))
    return weight + (torch.floor(weight.detach() * scale + 0.5) / scale - weight.detach())


class Prior(nn.Module):
    """Causal network over codes; the code is predicted as (cluster, member of the cluster).

    The tree is part of the state: ``members`` (clusters, size) lists the codes of each cluster.
    """

    members: Tensor
    place: Tensor

    def __init__(self, shape: PriorShape, members: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.quantized = False
        self.register_buffer("members", members)
        place = torch.empty(shape.codebook_size, dtype=torch.long)
        place[members.reshape(-1)] = torch.arange(shape.codebook_size)
        self.register_buffer("place", place)
        self.embedding = nn.Parameter(torch.randn(shape.codebook_size + 1, shape.embedding) * 0.05)
        w = shape.width
        self.first = nn.Parameter(
            torch.randn(w, shape.taps * shape.embedding) * (shape.taps * 20) ** -0.5
        )
        self.layers = nn.ParameterList(
            nn.Parameter(torch.randn(w, 2 * w) * (2 * w) ** -0.5 * 0.7) for _ in shape.dilations
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(w)) for _ in range(1 + len(shape.dilations))
        )
        self.to_clusters = nn.Parameter(torch.randn(shape.clusters, w) * 0.01)
        self.cluster_bias = nn.Parameter(torch.zeros(shape.clusters))
        self.to_query = nn.Parameter(torch.randn(shape.query, w) * w**-0.5)
        self.query_bias = nn.Parameter(torch.zeros(shape.query))
        self.entries = nn.Parameter(torch.randn(shape.codebook_size, shape.query) * 0.02)
        self.entry_bias = nn.Parameter(torch.zeros(shape.codebook_size))

    def _round(self, x: Tensor, places: int) -> Tensor:
        return _RoundStraightThrough.apply(x, places) if self.quantized else x

    def _weight(self, weight: Tensor) -> Tensor:
        return round_weight(weight) if self.quantized else weight

    def _activate(self, stream: Tensor) -> Tensor:
        return F.hardtanh(self._round(stream, ACTIVATION_PLACES), 0.0, 255 / 2**ACTIVATION_PLACES)

    def hidden(self, codes: Tensor) -> Tensor:
        """(batch, frames) codes -> (batch, frames, width) activations that predict each of them."""
        table = self._round(self.embedding, ACTIVATION_PLACES)
        table = table.clamp(-127 / 2**ACTIVATION_PLACES, 127 / 2**ACTIVATION_PLACES)
        previous = F.pad(codes[:, :-1], (1, 0), value=self.shape.codebook_size)
        # embedding() has the faster backward pass for a large table.
        x = F.embedding(previous, table)
        shifted = [F.pad(x, (0, 0, i, 0))[:, : x.shape[1]] for i in range(self.shape.taps)]
        x = _linear(torch.cat(shifted, dim=2), self._weight(self.first)) + self.biases[0]
        x = self._round(x, STREAM_PLACES)
        for weight, bias, dilation in zip(self.layers, list(self.biases)[1:], self.shape.dilations):
            a = self._activate(x)
            past = F.pad(a, (0, 0, dilation, 0))[:, : a.shape[1]]
            y = _linear(torch.cat([a, past], dim=2), self._weight(weight)) + bias
            x = x + self._round(y, STREAM_PLACES)
        return self._activate(x)

    def bits(self, codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cost of each code within ``lengths``: (cluster bits, member bits), each (n,)."""
        hidden = self.hidden(codes)
        valid = torch.arange(codes.shape[1]) < lengths[:, None]
        hidden, targets = hidden[valid], self.place[codes[valid]]
        size = self.members.shape[1]
        cluster, member = targets // size, targets % size
        logits = _linear(hidden, self._weight(self.to_clusters)) + self.cluster_bias
        logits = self._round(logits, LOGIT_PLACES)
        cluster_cost = F.cross_entropy(logits.float(), cluster, reduction="none")

        query = _linear(hidden, self._weight(self.to_query)) + self.query_bias
        query = self._round(query, ACTIVATION_PLACES)
        query = F.hardtanh(query, -127 / 2**ACTIVATION_PLACES, 127 / 2**ACTIVATION_PLACES)
        # One product per cluster, over the frames with a code in it.
        order = torch.argsort(cluster, stable=True)
        counts = torch.bincount(cluster, minlength=self.shape.clusters)
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[cluster[order]]
        slot = torch.empty_like(order)
        slot[order] = rank
        padded = query.new_zeros(self.shape.clusters, int(counts.max()), query.shape[1])
        padded = padded.index_put((cluster, slot), query)
        entries = self._weight(self.entries[self.members.reshape(-1)])
        table = entries.view(self.shape.clusters, size, -1)
        bias = self.entry_bias[self.members]
        product = (
            torch.bmm(padded.bfloat16(), table.bfloat16().transpose(1, 2)).float()
            if _linear.half
            else torch.bmm(padded, table.transpose(1, 2))
        )
        scores = self._round(product[cluster, slot] + bias[cluster], LOGIT_PLACES)
        member_cost = F.cross_entropy(scores, member, reduction="none")
        return cluster_cost / math.log(2), member_cost / math.log(2)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if _linear.half:
        return F.linear(x.bfloat16(), weight.bfloat16()).float()
    return F.linear(x, weight)


_linear.half = False


def to_integers(model: Prior) -> dict[str, np.ndarray]:
    """The tensors of a prior file, see ``simvq_audio.prior.save_prior``."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    embedding = torch.floor(state["embedding"] * 2**ACTIVATION_PLACES + 0.5)
    tensors = {
        "embedding": embedding.clamp(-127, 127).to(torch.int8),
        "tree": model.members.to(torch.uint16),
        "exponentials": torch.from_numpy(_exponentials()),
    }

    def dense(name: str, weight: Tensor, bias: Tensor, places_out: int) -> None:
        places = weight_places(weight)
        shift = places[:, 0] + ACTIVATION_PLACES - places_out
        half = torch.where(shift > 0, torch.exp2(shift - 1), 0.0)
        tensors[f"{name}.weight"] = torch.floor(weight * torch.exp2(places) + 0.5).to(torch.int8)
        scaled = torch.round(bias * torch.exp2(places[:, 0] + ACTIVATION_PLACES)) + half
        tensors[f"{name}.bias"] = scaled.to(torch.int32)
        tensors[f"{name}.shift"] = shift.to(torch.int8)

    dense("first", state["first"], state["biases.0"], STREAM_PLACES)
    for i in range(len(model.layers)):
        dense(f"layers.{i}", state[f"layers.{i}"], state[f"biases.{i + 1}"], STREAM_PLACES)
    dense("clusters", state["to_clusters"], state["cluster_bias"], LOGIT_PLACES)
    dense("query", state["to_query"], state["query_bias"], ACTIVATION_PLACES)
    order = model.members.reshape(-1)
    dense("members", state["entries"][order], state["entry_bias"][order], LOGIT_PLACES)
    table = model.members.shape
    for part in ("weight", "bias", "shift"):
        tensor = tensors[f"members.{part}"]
        tensors[f"members.{part}"] = tensor.reshape(*table, *tensor.shape[1:])
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _exponentials() -> np.ndarray:
    """round(2^16 exp(-i / 32)) as int32, until it is 1."""
    values = np.round(2.0**16 * np.exp(-np.arange(1024) / 2**LOGIT_PLACES))
    return values[: int((values >= 1).sum())].astype(np.int32)
