"""Losses of the generator and the discriminators."""

from simvq_audio.training.losses.adversarial import discriminator_loss, generator_losses
from simvq_audio.training.losses.bandwidth import limit_bandwidth
from simvq_audio.training.losses.config import LossConfig, MelConfig
from simvq_audio.training.losses.spectral import SpectralLosses

__all__ = [
    "LossConfig",
    "MelConfig",
    "SpectralLosses",
    "discriminator_loss",
    "generator_losses",
    "limit_bandwidth",
]
