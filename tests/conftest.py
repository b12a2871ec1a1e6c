"""A small model of the compact kind, random but not degenerate, and a codec of it."""

from __future__ import annotations

import pytest
import torch

from simvq_audio.codec import Codec
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import (
    ModelConfig,
    SeanetEncoderConfig,
    SpectralEncoderConfig,
    VocosDecoderConfig,
)
from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.storage import save_model

SMALL = ModelConfig(
    name="small",
    encoder=SpectralEncoderConfig(dim=32, hidden_dim=64, blocks=2),
    quantizer=SimVQConfig(codebook_size=512, latent_dim=8),
    decoder=VocosDecoderConfig(dim=32, hidden_dim=64, blocks=3),
)


@pytest.fixture(scope="session")
def model() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(SMALL).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        # Wide weights and biases, so that a difference in padding or context shows.
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1))
        if "norm.weight" in name or name.endswith("gamma"):
            parameter.add_(0.5)
    latent = model.encode_latent(0.1 * torch.randn(4, 24_000))
    latents = latent.transpose(1, 2).flatten(0, 1)
    model.quantizer.start(latents, torch.Generator(), entries_from_latents=False)
    return model


@pytest.fixture(scope="session")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, model.config, model.state_dict())
    return path


@pytest.fixture(scope="session")
def codec(model_file) -> Codec:
    return Codec.load(model_file, device="cpu")


@pytest.fixture(scope="session")
def published_file(tmp_path_factory):
    """A small model of the published kind: recurrent encoder, decoder that sees everything."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="small-published",
        encoder=SeanetEncoderConfig(filters=4),
        quantizer=SimVQConfig(codebook_size=64, latent_dim=16),
        decoder=VocosDecoderConfig(dim=32, hidden_dim=64, blocks=1, attention_prenet=True),
    )
    model = Autoencoder(config).eval()
    latents = model.encode_latent(torch.randn(2, 24_000)).transpose(1, 2).flatten(0, 1)
    model.quantizer.start(latents, torch.Generator(), entries_from_latents=False)
    path = tmp_path_factory.mktemp("published") / "published.safetensors"
    save_model(path, config, model.state_dict())
    return path
