"""Starting the quantiser where the latents are.

At the usual initialisation the latents and W(C) differ in scale, offset and shape, and a handful
of entries is nearest to every frame; with few entries in use, only those few pull on W. Setting W
from the latents' covariance puts the whole codebook where the latents lie.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simvq_audio.model.quantizer import SimVQ


@torch.no_grad()
def match_codebook_to_latents(quantizer: SimVQ, latents: Tensor) -> None:
    """Set W so that W(C) has the latents' mean and covariance.

    With the covariance's eigenvectors V and eigenvalues L, the weight becomes V L^(1/2) times the
    factor that makes C unit normal, and the bias the mean.

    Args:
        latents: (batch, latent_dim, frames), or several batches of them side by side.

    Raises:
        ValueError: there are fewer latents than two.
    """
    flat = latents.float().transpose(1, 2).reshape(-1, latents.shape[1]).double()
    if len(flat) < 2:
        raise ValueError("at least two latents are needed for a covariance")
    mean = flat.mean(dim=0)
    centred = flat - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(flat) - 1))
    weight = vectors * values.clamp(min=0).sqrt()
    weight = weight * quantizer.config.latent_dim**0.5  # C is drawn from N(0, 1/latent_dim)
    quantizer.proj.weight.copy_(weight)
    if quantizer.proj.bias is not None:
        quantizer.proj.bias.copy_(mean)
