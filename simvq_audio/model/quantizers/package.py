"""Quantisers of vector-quantize-pytorch (lucidrains, MIT) behind this package's protocol."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError, needs_extra
from simvq_audio.model.quantizers.base import Quantized, Quantizer
from simvq_audio.model.quantizers.config import PackageConfig
from simvq_audio.model.quantizers.fsq import least_squares, principal_axes
from simvq_audio.model.quantizers.nearest import nearest_entries
from simvq_audio.model.quantizers.start import draw, moments

# Distances that the package holds at once when it encodes: 2**25 float32 values are 128 MiB.
_BLOCK = 2**25
# An entry that is chosen this much more rarely than the mean is moved to a latent.
_DEAD_SHARE = 0.1


class PackageQuantizer(Quantizer):
    """A class of the package, made with ``latent_dim`` as its ``dim`` and the options given.

    Its loss comes as one term, "package", with the weights that its options give the parts.

    Args:
        config: names the class.

    Raises:
        MissingExtraError: the package is not installed.
        ConfigError: it has no such class, or the class refuses the options.
    """

    config: PackageConfig

    def __init__(self, config: PackageConfig) -> None:
        super().__init__()
        self.config = config
        with needs_extra("study"):
            import vector_quantize_pytorch as package
        make = getattr(package, config.name, None)
        if not isinstance(make, type):
            raise ConfigError(f"vector-quantize-pytorch has no quantiser {config.name!r}")
        # TOML and JSON have lists where the package wants tuples.
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in config.options.items()}
        try:
            self.quantizer = make(dim=config.latent_dim, **options)
        except (TypeError, AssertionError) as error:
            raise ConfigError(f"{config.name} of vector-quantize-pytorch: {error}") from error

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``."""
        with torch.autocast(latent.device.type, enabled=False):
            entries, indices, *loss = self.quantizer(latent.float().transpose(1, 2))
        losses = {"package": loss[0].sum()} if loss else {}
        return Quantized(entries.transpose(1, 2), _frames_last(indices.long()), losses)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices, as the package gives them in evaluation mode."""
        training = self.quantizer.training
        self.quantizer.eval()
        if latent.shape[-1] == 0:  # which some of its classes refuse
            sizes = self.config.codebook_sizes
            shape = (len(latent), 0) if len(sizes) == 1 else (len(latent), len(sizes), 0)
            return torch.zeros(shape, dtype=torch.long, device=latent.device)
        frames = max(1, _BLOCK // (max(self.config.codebook_sizes) * max(1, len(latent))))
        try:
            parts = [self.forward(part).indices for part in latent.split(frames, dim=2)]
        finally:
            self.quantizer.train(training)
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Indices -> (batch, latent_dim, frames)."""
        own = self.quantizer
        if indices.shape[-1] == 0:
            return torch.zeros(len(indices), self.config.latent_dim, 0, device=indices.device)
        find = getattr(own, "get_output_from_indices", None) or own.indices_to_codes
        return find(indices.transpose(1, 2) if indices.dim() == 3 else indices).transpose(1, 2)

    def fast_parameters(self) -> list[nn.Parameter]:
        """All of them, where the configuration says so."""
        return list(self.parameters()) if self.config.fast else []

    @torch.no_grad()
    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """Start VectorQuantize and ResidualVQ at latents that are drawn, the others by moments.

        Reaches into the package, whose release is pinned for that. Classes other than these and
        SimVQ, FSQ and LFQ stay as they are.
        """
        latents, own = latents.float(), self.quantizer
        if self.config.name == "VectorQuantize":
            _place(own, _drawn(latents, self.config.codebook_sizes[0], generator))
        elif self.config.name == "ResidualVQ":
            rest = latents
            for size, stage in zip(self.config.codebook_sizes, own.layers):
                entries = _drawn(rest, size, generator)
                _place(stage, entries)
                rest = rest - entries[nearest_entries(rest, entries)]
        elif self.config.name == "SimVQ":
            _, scale = moments(latents.double())
            own.code_transform.weight.copy_(scale * latents.shape[1] ** 0.5)
        elif self.config.name in ("FSQ", "LFQ") and isinstance(own.project_in, nn.Linear):
            turn = generator if self.config.name == "LFQ" else None
            _fit_projections(own, latents, turn)


def _frames_last(indices: Tensor) -> Tensor:
    """(batch, frames, codebooks) as the package has them -> (batch, codebooks, frames)."""
    return indices.transpose(1, 2) if indices.dim() == 3 else indices


def _drawn(latents: Tensor, size: int, generator: torch.Generator) -> Tensor:
    entries, noise = draw(latents, size, generator)
    return entries + 0.1 * latents.std(dim=0) * noise


def _place(quantizer: Any, entries: Tensor) -> None:
    """Set a ``VectorQuantize``'s table, and its averages as if entries had been chosen evenly."""
    book = quantizer._codebook
    book.embed.data.copy_(entries[None])
    book.embed_avg.data.copy_(entries[None])
    book.cluster_size.data.fill_(1.0)
    if book.has_dead_code_replacement:
        book.threshold_ema_dead_code = _DEAD_SHARE
        book.reset_cluster_size = 1.0


def _fit_projections(quantizer: Any, latents: Tensor, turn: torch.Generator | None) -> None:
    """Start the linear layers around a grid where the latents are.

    Args:
        turn: turns the axes at random, whitened by half only: LFQ gives each dimension two values,
            so every dimension should have its share of the largest axes.
    """
    flat, kept = latents.double(), quantizer.project_in.out_features
    weight, bias = principal_axes(flat, kept)
    if turn is not None:
        spread = weight.norm(dim=1).pow(-1)
        rotation = torch.linalg.qr(torch.randn(kept, kept, generator=turn)).Q.to(weight)
        weight = rotation @ (weight * spread.sqrt()[:, None]) / spread.mean().sqrt()
        bias = -weight @ flat.mean(dim=0)
    quantizer.project_in.weight.copy_(weight)
    quantizer.project_in.bias.copy_(bias)
    seen: list[Tensor] = []
    hook = quantizer.project_out.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    training = quantizer.training
    quantizer.eval()(latents[None])
    quantizer.train(training)
    hook.remove()
    weight, bias = least_squares(seen[0].reshape(len(latents), -1).double(), flat)
    quantizer.project_out.weight.copy_(weight)
    quantizer.project_out.bias.copy_(bias)
