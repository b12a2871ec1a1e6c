"""Which spectral differences the generator is judged by: frozen dataclasses with weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from simvq_audio.config_checks import (
    require,
    require_at_least,
    require_choice,
    require_number,
    whole_number_rows,
)
from simvq_audio.errors import ConfigError
from simvq_audio.model.config import from_plain

MEL_FILTERS = ("slaney", "htk")


@dataclass(frozen=True)
class MelLossConfig:
    """Differences of log-mel magnitudes.

    Attributes:
        weight: of the term; 0 leaves it out.
        scales: (window, hop, bands) each, windows and hops in samples.
        filters: "slaney" (Slaney's mel scale, filters of equal area: librosa's default) or "htk"
            (HTK's mel scale, filters that peak at 1: torchaudio's default).
        floor: magnitudes below it count as it, so that silence does not weigh more than speech.
    """

    weight: float = 15.0
    scales: tuple[tuple[int, int, int], ...] = (
        (64, 16, 6),
        (128, 32, 12),
        (256, 64, 24),
        (512, 128, 48),
        (1024, 256, 80),
        (2048, 512, 128),
    )
    filters: str = "slaney"
    floor: float = 1e-5

    def __post_init__(self) -> None:
        require_number(self, "weight")
        whole_number_rows(self, "scales", ("window", "hop", "bands"))
        require(
            all(window % 2 == 0 for window, _, _ in self.scales),
            "MelLossConfig.scales must have even windows",
        )
        require_choice(self, "filters", MEL_FILTERS)
        require_number(self, "floor", above_zero=True)


@dataclass(frozen=True)
class StftLossConfig:
    """auraloss' multi-resolution STFT loss; the resolutions are its defaults.

    Attributes:
        weight: of the term; 0 leaves it out.
        resolutions: (n_fft, hop, window) each, in samples.
    """

    weight: float = 0.0
    resolutions: tuple[tuple[int, int, int], ...] = (
        (1024, 120, 600),
        (2048, 240, 1200),
        (512, 50, 240),
    )

    def __post_init__(self) -> None:
        require_number(self, "weight")
        whole_number_rows(self, "resolutions", ("n_fft", "hop", "window"))
        require(
            all(window <= n_fft for n_fft, _, window in self.resolutions),
            "StftLossConfig.resolutions must not have a window above its n_fft",
        )


@dataclass(frozen=True)
class ComplexStftLossConfig:
    """Differences of complex spectra with compressed magnitudes: the term that hears phase.

    Attributes:
        weight: of the term; 0 leaves it out.
        window, hop: of the STFT, in samples.
        power: that magnitudes are raised to, in (0, 1].
    """

    weight: float = 0.0
    window: int = 1280
    hop: int = 320
    power: float = 0.3

    def __post_init__(self) -> None:
        require_number(self, "weight")
        require_at_least(self, "window", 2)
        require_at_least(self, "hop", 1)
        require_number(self, "power", above_zero=True)
        require(self.power <= 1, "ComplexStftLossConfig.power must not be above 1")


@dataclass(frozen=True)
class PlainLossConfig:
    """A term with nothing to choose but its weight.

    Attributes:
        weight: of the term; 0 leaves it out.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        require_number(self, "weight")


_TERMS = {
    "mel": MelLossConfig,
    "stft": StftLossConfig,
    "complex_stft": ComplexStftLossConfig,
    "log_magnitude": PlainLossConfig,
    "loudness": PlainLossConfig,
    "intelligibility": PlainLossConfig,
}


@dataclass(frozen=True)
class SpectralLossConfig:
    """The generator's spectral terms, each with its weight; by default multi-scale mel alone."""

    mel: MelLossConfig = field(default_factory=MelLossConfig)
    stft: StftLossConfig = field(default_factory=StftLossConfig)
    complex_stft: ComplexStftLossConfig = field(default_factory=ComplexStftLossConfig)
    log_magnitude: PlainLossConfig = field(default_factory=PlainLossConfig)
    loudness: PlainLossConfig = field(default_factory=PlainLossConfig)
    intelligibility: PlainLossConfig = field(default_factory=PlainLossConfig)

    def __post_init__(self) -> None:
        require(
            any(weight > 0 for weight in self.weights.values()),
            "SpectralLossConfig needs a term with a weight above zero",
        )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, by its name in ``SpectralLosses``' result."""
        return {name: getattr(self, name).weight for name in _TERMS}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that ``from_dict`` takes back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any, where: str = "spectral") -> SpectralLossConfig:
        """Build from plain values, as read from TOML or JSON: {"mel": {...}, ...}.

        Raises:
            ConfigError: a key is unknown, or a value is of the wrong type or out of range.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{where} must be a table of settings, not {values!r}")
        terms = {
            name: from_plain(_TERMS[name], term, f"{where}.{name}") if name in _TERMS else term
            for name, term in values.items()
        }
        return from_plain(cls, terms, where)


def published() -> SpectralLossConfig:
    """The published SimVQ audio model's: one mel scale at weight 45 (as in HiFi-GAN and Vocos)."""
    return SpectralLossConfig(
        mel=MelLossConfig(weight=45.0, scales=((1024, 256, 100),), filters="htk", floor=1e-7)
    )
