"""The autoencoder of the study and one step of its training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from simvq_audio.model.decoder import Decoder
from simvq_audio.model.encoder import SpectralEncoder
from simvq_audio.training.losses import SpectralLosses, limit_bandwidth
from simvq_audio.training.packed import PackedSpeech
from simvq_audio.training.schedule import learning_rate_factor
from study.bottleneck import Bottleneck
from study.setting import Setting


class StepResult(NamedTuple):
    """What a step reports, on the device.

    Attributes:
        mel: the spectral loss, without its weight.
        error: squared quantisation error over the latents' variance; None if unquantised.
        indices: (crops, frames) codes; None if unquantised.
    """

    mel: Tensor
    error: Tensor | None
    indices: Tensor | None


@dataclass
class Networks:
    """Encoder and decoder with the optimiser of both."""

    encoder: SpectralEncoder
    decoder: Decoder
    optimizer: torch.optim.Optimizer

    @classmethod
    def make(cls, setting: Setting, seed: int, device: torch.device) -> Networks:
        torch.manual_seed(seed)
        encoder = SpectralEncoder(setting.encoder, setting.latent_dim).to(device)
        decoder = Decoder(setting.decoder, setting.latent_dim).to(device)
        parameters = [*encoder.parameters(), *decoder.parameters()]
        return cls(encoder, decoder, _adam(parameters, setting))

    def parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def eval(self) -> None:
        self.encoder.eval()
        self.decoder.eval()


class Session:
    """Training of one autoencoder on the crops of its seed.

    Args:
        setting: what all runs share.
        source: the packed speech, opened with that seed.
        steps: where the learning rate ends.
    """

    def __init__(
        self,
        setting: Setting,
        networks: Networks,
        source: PackedSpeech,
        device: torch.device,
        steps: int,
    ) -> None:
        self.setting = setting
        self.networks = networks
        self._source = source
        self._device = device
        self._steps = steps
        self._losses = SpectralLosses(setting.losses, setting.sample_rate).to(device)
        self._bottleneck: Bottleneck | None = None
        self._table_optimizer: torch.optim.Optimizer | None = None

    def set_bottleneck(self, bottleneck: Bottleneck) -> None:
        """Quantise from the next step on, and train what the quantiser has to learn."""
        self._bottleneck = bottleneck
        parameters = list(bottleneck.parameters())
        factor = self.setting.fast_factor if bottleneck.fast else 1.0
        if parameters:
            self._table_optimizer = _adam(parameters, self.setting, factor)

    def crops(self, step: int) -> tuple[Tensor, Tensor]:
        """Waveforms and bandwidths of a step, alike for all runs of a seed."""
        setting = self.setting
        waveforms, bandwidths = self._source.batch(step, setting.batch_size)
        bandwidths = bandwidths.clamp(max=setting.bandwidth_hz).to(self._device)
        return limit(waveforms.to(self._device), setting), bandwidths

    @torch.no_grad()
    def latents(self, step: int) -> Tensor:
        """Latents (crops, latent_dim, frames) of the crops of a step."""
        return self.networks.encoder(self.crops(step)[0])

    def step(self, number: int) -> StepResult:
        """One update."""
        setting = self.setting
        waveforms, bandwidths = self.crops(number)
        latent = self.networks.encoder(waveforms)
        quantized = None if self._bottleneck is None else self._bottleneck(latent)
        decoded = self.networks.decoder(latent if quantized is None else quantized.latent)
        decoded = decoded[:, : waveforms.shape[1]]
        losses = self._losses(
            limit_bandwidth(decoded, bandwidths, setting.sample_rate),
            limit_bandwidth(waveforms, bandwidths, setting.sample_rate),
        )
        total = self._losses.total(losses)
        if quantized is not None:
            total = total + setting.quantizer_weight * quantized.loss
        self._update(total, number)
        if quantized is None:
            return StepResult(losses["mel"].detach(), None, None)
        return StepResult(
            losses["mel"].detach(),
            relative_error(latent.detach(), quantized.latent.detach()),
            quantized.indices,
        )

    def _update(self, total: Tensor, number: int) -> None:
        factor = learning_rate_factor(self.setting.optimizer, number, self._steps)
        optimizers = [self.networks.optimizer]
        if self._table_optimizer is not None:
            optimizers.append(self._table_optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        # The quantiser's gradients are left out: their size depends on its kind, and would decide
        # how far encoder and decoder move.
        nn.utils.clip_grad_norm_(
            self.networks.parameters(), self.setting.optimizer.clip_norm, error_if_nonfinite=True
        )
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()


def open_speech(path: Path, setting: Setting, seed: int) -> PackedSpeech:
    """The crops of a seed."""
    return PackedSpeech(
        path,
        sample_rate=setting.sample_rate,
        crop_samples=setting.crop_samples,
        speaker_power=0.5,
        gain_db=12.0,
        seed=seed,
    )


def limit(waveforms: Tensor, setting: Setting) -> Tensor:
    """What a model sees of (batch, samples)."""
    bandwidths = waveforms.new_full((len(waveforms),), setting.bandwidth_hz)
    return limit_bandwidth(waveforms, bandwidths, setting.sample_rate)


def relative_error(latent: Tensor, entries: Tensor) -> Tensor:
    """Squared error over the variance around the mean, both (batch, latent_dim, frames)."""
    spread = latent - latent.mean(dim=(0, 2), keepdim=True)
    return (latent - entries).square().sum() / spread.square().sum().clamp(min=1e-12)


def _adam(
    parameters: list[nn.Parameter], setting: Setting, factor: float = 1.0
) -> torch.optim.Optimizer:
    rate = setting.learning_rate * factor
    return torch.optim.Adam(
        [{"params": parameters, "lr": rate, "base_lr": rate}],
        betas=setting.optimizer.betas,
        fused=True,
    )
