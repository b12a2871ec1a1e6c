"""Weights of the generator's losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simvq_audio.schema import Count, Flag, NonNegative, Positive, configuration

_EvenCount = Annotated[int, Field(strict=True, ge=2, multiple_of=2)]
_LARGEST_SHARE_OF_SCORES = 0.1


@configuration
class LossConfig:
    """Weights of the generator's losses; 0 disables a loss.

    Attributes:
        mel: log-mel magnitudes (``losses.mel``).
        bins: log magnitudes of single STFT bins (``losses.bins``).
        pesq: PESQ's disturbance (``losses.pesq``).
        stoi: STOI's correlation of envelopes (``losses.stoi``).
        quantizer: the quantiser's losses. Much above 3 (with a mel weight of 15), latents shrink
            and perplexity falls.
        commitment: weight of the commitment loss (beta) relative to the codebook loss.
        adversarial, feature_matching: see ``losses.adversarial.generator_losses``.
        distil: mean squared distance between the encoder's latent and that of
            ``TrainingConfig.teacher``.
        balance: weights of all losses but the quantiser's and ``distil`` are shares of the
            gradient; see ``balancer.WaveformGradient``.
    """

    mel: NonNegative = 15.0
    bins: NonNegative = 0.0
    pesq: NonNegative = 0.0
    stoi: NonNegative = 0.0
    quantizer: NonNegative = 3.0
    commitment: NonNegative = 0.25
    adversarial: NonNegative = 1.0
    feature_matching: NonNegative = 5.0
    distil: NonNegative = 0.0
    balance: Flag = False

    def __post_init__(self) -> None:
        if not any(self.spectral.values()):
            raise ValueError("one of mel, bins, pesq and stoi must have a weight above zero")
        share = (self.pesq + self.stoi) / sum(self.waveform.values())
        if self.balance and share > _LARGEST_SHARE_OF_SCORES:
            raise ValueError(
                f"pesq and stoi must have at most {_LARGEST_SHARE_OF_SCORES:g} of the shares "
                f"together, not {share:.3g}: PESQ and STOI prove nothing about a model that was "
                "trained mostly for them"
            )

    @property
    def spectral(self) -> dict[str, float]:
        """Weight of each loss that compares spectra, by its name in ``SpectralLosses``."""
        return {"mel": self.mel, "bins": self.bins, "pesq": self.pesq, "stoi": self.stoi}

    @property
    def waveform(self) -> dict[str, float]:
        """Weight of each loss that reaches the model through the reconstruction."""
        return {
            **self.spectral,
            "adversarial": self.adversarial,
            "feature_matching": self.feature_matching,
        }


@configuration
class MelConfig:
    """Mel spectra of the mel loss.

    Attributes:
        scales: (window, hop, bands) each, windows and hops in samples.
        filters: "slaney" (Slaney's mel scale, filters of equal area: librosa's default) or "htk"
            (HTK's mel scale, filters that peak at 1: torchaudio's default).
        floor: least magnitude, so that silence does not weigh more than speech.
    """

    scales: Annotated[tuple[tuple[_EvenCount, Count, Count], ...], Field(min_length=1)] = (
        (64, 16, 6),
        (128, 32, 12),
        (256, 64, 24),
        (512, 128, 48),
        (1024, 256, 80),
        (2048, 512, 128),
    )
    filters: Literal["slaney", "htk"] = "slaney"
    floor: Positive = 1e-5
