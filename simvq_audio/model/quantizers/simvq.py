"""SimVQ: vector quantisation with a frozen basis under one linear layer (arXiv 2411.02038)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.quantizers.base import (
    TableQuantizer,
    rotate_through,
    straight_through,
)
from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.quantizers.start import cell_means, draw, moments


class SimVQ(TableQuantizer):
    """Nearest neighbour in ``W(C)``: C frozen and random, W the only thing that learns.

    ``basis`` is C (codebook_size, latent_dim), drawn from N(0, 1/latent_dim) and kept in the
    model file, since nothing else could bring it back. ``proj`` is W.

    Source: Zhu et al., "Addressing Representation Collapse in Vector Quantized Models with One
    Linear Layer", and its published audio code (with a bias in W).
    """

    basis: Tensor

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__()
        self.config = config
        k, d = config.codebook_size, config.latent_dim
        basis = torch.randn(k, d) * d**-0.5
        if config.basis == "frozen":
            self.register_buffer("basis", basis)
        else:
            self.basis = nn.Parameter(basis)
        self.proj = nn.Linear(d, d, bias=config.bias)
        self._cache: tuple[tuple[object, ...], Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> SimVQ:
        """Change mode as ``Module.train`` does; what was cached under the old W is dropped."""
        self._cache = None
        return super().train(mode)

    def fast_parameters(self) -> list[nn.Parameter]:
        """W, whose entries are large because those of C are small, while Adam's steps are not.

        At the common learning rate the latents outgrow the codebook, and perplexity falls from the
        start on.
        """
        if self.config.basis == "fast":
            return list(self.parameters())
        return list(self.proj.parameters())

    def codebook(self) -> Tensor:
        """The effective codebook W(C), (codebook_size, latent_dim) float32, without gradient.

        In evaluation mode it is kept between calls, and computed anew when W or C has changed in
        place or been replaced. In training mode it is computed at every call: fused optimisers
        change W without raising its version (torch 2.11).
        """
        return self.codebook_and_norms()[0]

    def entries_of(self, indices: Tensor) -> Tensor:
        """W of the chosen rows of C, which are those rows of W(C): no gradient at size K x d."""
        return F.linear(self.basis[indices], self.proj.weight, self.proj.bias)

    def pass_gradient(self, z: Tensor, entries: Tensor) -> Tensor:
        """The entries, with a gradient to the latents as the configuration says."""
        return (rotate_through if self.config.rotation else straight_through)(z, entries)

    @torch.no_grad()
    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """Set W so that W(C) has the latents' mean and covariance, then C; see ``Quantizer``.

        With the covariance's eigenvectors V and eigenvalues L, W becomes V L^(1/2) times the
        factor that makes C unit normal. A C that is drawn from the latents consists of whitened
        ones: it keeps its variance of 1/latent_dim, and is as frozen afterwards as a random one.
        """
        flat = latents.double()
        size, width = self.config.codebook_size, self.config.latent_dim
        mean, scale = moments(flat)
        self.proj.weight.copy_(scale * width**0.5)
        if self.proj.bias is not None:
            self.proj.bias.copy_(mean)
        if entries_from_latents:
            drawn, noise = draw(flat, size, generator)
            self.basis.copy_(self._before_w(drawn) + 0.1 * width**-0.5 * noise)
        for _ in range(kmeans_rounds):
            with torch.autocast(latents.device.type, enabled=False):
                cells = self.search(latents.float())
            hit, means = cell_means(flat, cells, size)
            self.basis[hit] = self._before_w(means).float()

    def _before_w(self, entries: Tensor) -> Tensor:
        """What W takes to these entries, (n, latent_dim) float64."""
        bias = 0.0 if self.proj.bias is None else self.proj.bias.double()
        return torch.linalg.solve(self.proj.weight.double(), (entries - bias).T).T

    def codebook_and_norms(self) -> tuple[Tensor, Tensor]:
        """(W(C), half the squared norm of each row)."""
        if self.training:
            return self._project()
        # In-place changes (load_state_dict, plain optimisers) raise a tensor's version; moves and
        # replacements change its storage. train() drops the cache as well.
        key = tuple(
            (t.data_ptr(), t._version, t.device)
            for t in (self.proj.weight, self.proj.bias, self.basis)
            if t is not None
        )
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, *self._project())
        return self._cache[1], self._cache[2]

    @torch.no_grad()
    def _project(self) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.basis.device.type, enabled=False):
            codebook = F.linear(self.basis, self.proj.weight, self.proj.bias)
        return codebook, 0.5 * codebook.square().sum(dim=1)
