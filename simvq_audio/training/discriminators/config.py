"""Which discriminators judge the generator, and how: frozen dataclasses, checked at construction.

A ``DiscriminatorConfig`` holds families; each has a ``kind`` that ``discriminators/__init__.py``
maps to a module, and says itself how its scores and features become losses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

from simvq_audio.config_checks import (
    require,
    require_at_least,
    require_choice,
    require_number,
    whole_number_rows,
    whole_numbers,
)
from simvq_audio.errors import ConfigError
from simvq_audio.model.config import from_plain

GAN_LOSSES = ("hinge", "least_squares")
REDUCTIONS = ("mean", "sum")
FEATURE_MATCHING = ("l1", "relative")


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """What every family of sub-discriminators has in common.

    Attributes:
        gan: "hinge" (relu(1 - real) + relu(1 + fake); relu(1 - fake) for the generator, as in
            EnCodec and Vocos) or "least_squares" ((1 - real)^2 + fake^2; (1 - fake)^2).
        reduction: what becomes of the sub-discriminators' losses, "mean" or "sum".
        feature_matching: "l1", mean absolute difference summed over layers (HiFi-GAN, DAC), or
            "relative", divided by the real features' mean magnitude and averaged over layers
            (EnCodec).
        first_feature: index of the first layer whose features are matched.
        match_scores: count the score map as one more layer of features.
        normalize: take each item's mean away and bring its peak to 0.8 before judging it (DAC).
        weight: of all the family's losses, the discriminators' own included.
    """

    kind: ClassVar[str]
    gan: str = "hinge"
    reduction: str = "mean"
    feature_matching: str = "l1"
    first_feature: int = 0
    match_scores: bool = False
    normalize: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_choice(self, "gan", GAN_LOSSES)
        require_choice(self, "reduction", REDUCTIONS)
        require_choice(self, "feature_matching", FEATURE_MATCHING)
        require_at_least(self, "first_feature", 0)
        require_number(self, "weight", above_zero=True)
        require(
            self.first_feature < self.layers,
            f"{type(self).__name__}.first_feature must be below {self.layers}, the number of "
            f"layers, not {self.first_feature}",
        )

    @property
    def layers(self) -> int:
        """Feature tensors that each sub-discriminator gives."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StftDiscriminatorConfig(FamilyConfig):
    """EnCodec's complex multi-scale STFT discriminator (arXiv 2210.13438).

    Attributes:
        n_ffts: one sub-discriminator a window length, in samples; the hop is a quarter of it.
        channels: of the convolutions (32 in EnCodec).
        compression: power that magnitudes are raised to before the first layer; 1 in EnCodec. Below
            1, quiet parts of the spectrum count too: on the compact model the discriminators' hinge
            loss falls from 2.0 to 0.67 in 250 steps at 0.4, and to 1.9 at 1.
    """

    kind: ClassVar[str] = "stft"
    feature_matching: str = "relative"
    n_ffts: tuple[int, ...] = (2048, 1024, 512)
    channels: int = 32
    compression: float = 1.0

    def __post_init__(self) -> None:
        whole_numbers(self, "n_ffts", minimum=16)
        require_at_least(self, "channels", 1)
        require(
            isinstance(self.compression, (int, float)) and 0 < self.compression <= 1,
            f"StftDiscriminatorConfig.compression must lie in (0, 1], not {self.compression!r}",
        )
        super().__post_init__()

    @property
    def layers(self) -> int:
        return 5


@dataclass(frozen=True, kw_only=True)
class PeriodDiscriminatorConfig(FamilyConfig):
    """The multi-period discriminator of HiFi-GAN (arXiv 2010.05646).

    Attributes:
        periods: one sub-discriminator a period, in samples.
        channels: of each layer; all but the last stride by 3.
    """

    kind: ClassVar[str] = "period"
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)

    def __post_init__(self) -> None:
        whole_numbers(self, "periods")
        whole_numbers(self, "channels")
        super().__post_init__()

    @property
    def layers(self) -> int:
        return len(self.channels)


@dataclass(frozen=True, kw_only=True)
class ResolutionDiscriminatorConfig(FamilyConfig):
    """The multi-resolution magnitude discriminator of UnivNet (arXiv 2106.07889), as in Vocos.

    Attributes:
        resolutions: one sub-discriminator a pair of (window length, hop), in samples.
        channels: of the convolutions.
    """

    kind: ClassVar[str] = "resolution"
    resolutions: tuple[tuple[int, int], ...] = ((1024, 256), (2048, 512), (512, 128))
    channels: int = 64

    def __post_init__(self) -> None:
        whole_number_rows(self, "resolutions", ("n_fft", "hop"))
        require_at_least(self, "channels", 1)
        super().__post_init__()

    @property
    def layers(self) -> int:
        return 5


@dataclass(frozen=True, kw_only=True)
class BandDiscriminatorConfig(FamilyConfig):
    """DAC's complex STFT discriminator with a stack of its own for every band (arXiv 2306.06546).

    Attributes:
        n_ffts: one sub-discriminator a window length, in samples; the hop is a quarter of it.
        bands: edges of the bands from 0 to 1, as fractions of the Nyquist frequency.
        channels: of the convolutions.
    """

    kind: ClassVar[str] = "band"
    n_ffts: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    channels: int = 32

    def __post_init__(self) -> None:
        whole_numbers(self, "n_ffts", minimum=16)
        require_at_least(self, "channels", 1)
        edges = self.bands
        fits = isinstance(edges, (list, tuple)) and len(edges) > 1
        fits = fits and all(type(edge) in (int, float) and 0 <= edge <= 1 for edge in edges)
        require(
            fits and all(low < high for low, high in pairwise(edges)),
            f"BandDiscriminatorConfig.bands must be rising fractions from 0 to 1, not {edges!r}",
        )
        object.__setattr__(self, "bands", tuple(float(edge) for edge in edges))
        bins = min(self.n_ffts) // 2 + 1
        require(
            all(int(low * bins) < int(high * bins) for low, high in pairwise(edges)),
            f"BandDiscriminatorConfig.bands has a band without a bin at n_fft {min(self.n_ffts)}",
        )
        super().__post_init__()

    @property
    def layers(self) -> int:
        return 5 * (len(self.bands) - 1)


Family: TypeAlias = (
    StftDiscriminatorConfig
    | PeriodDiscriminatorConfig
    | ResolutionDiscriminatorConfig
    | BandDiscriminatorConfig
)
_KINDS: dict[str, type[Family]] = {
    config.kind: config
    for config in (
        StftDiscriminatorConfig,
        PeriodDiscriminatorConfig,
        ResolutionDiscriminatorConfig,
        BandDiscriminatorConfig,
    )
}


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The families that judge the generator; their weighted losses are summed.

    The same kind may stand in it more than once: each entry has weights of its own.
    """

    families: tuple[Family, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", tuple(self.families))
        require(bool(self.families), "DiscriminatorConfig.families must not be empty")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that ``from_dict`` takes back."""
        return {
            "families": [
                {"kind": family.kind, **dataclasses.asdict(family)} for family in self.families
            ]
        }

    @classmethod
    def from_dict(cls, values: Any, where: str = "discriminators") -> DiscriminatorConfig:
        """Build from plain values, as read from TOML or JSON.

        Args:
            values: {"families": [{"kind": ..., ...}, ...]}, or the name of a configuration:
                "compact" or "published".
            where: what error messages call the table.

        Raises:
            ConfigError: a name, kind or key is unknown, or a value is of the wrong type or out of
                range.
        """
        if isinstance(values, str):
            if values not in _NAMED:
                raise ConfigError(
                    f"{where} names no known configuration: {values!r}; known: {', '.join(_NAMED)}"
                )
            return _NAMED[values]()
        if not isinstance(values, dict) or not isinstance(values.get("families"), (list, tuple)):
            raise ConfigError(
                f"{where} must be {' or '.join(map(repr, _NAMED))} or a table with a list "
                f"'families', not {values!r}"
            )
        families = [
            _family_from_dict(family, f"{where}.families[{index}]")
            for index, family in enumerate(values["families"])
        ]
        return from_plain(cls, {**values, "families": tuple(families)}, where)


def _family_from_dict(values: Any, where: str) -> Family:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table of settings, not {values!r}")
    values = dict(values)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"{where}.kind must be one of {', '.join(_KINDS)}, not {kind!r}")
    try:
        return from_plain(_KINDS[kind], values, where)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if where in message else f"{where}: {message}") from error


def published() -> DiscriminatorConfig:
    """The published SimVQ audio model's: Vocos' two families, then DAC's two.

    Source: VQSTFTWithDiscriminator in github youngsheen/SimVQ. All weights there are 1. Vocos'
    multi-period discriminators leave their first layer out of feature matching and count the score
    in; DAC's do the opposite.
    """
    vocos = {"gan": "hinge", "reduction": "mean", "match_scores": True}
    dac = {"gan": "least_squares", "reduction": "sum", "normalize": True}
    return DiscriminatorConfig(
        (
            PeriodDiscriminatorConfig(**vocos, first_feature=1),
            ResolutionDiscriminatorConfig(**vocos),
            PeriodDiscriminatorConfig(**dac),
            BandDiscriminatorConfig(**dac),
        )
    )


def compact() -> DiscriminatorConfig:
    """What a CPU can carry: EnCodec's multi-scale STFT at half width, a light multi-period."""
    return DiscriminatorConfig(
        (
            StftDiscriminatorConfig(channels=16, compression=0.4),
            PeriodDiscriminatorConfig(channels=(16, 32, 64, 128, 128), feature_matching="relative"),
        )
    )


_NAMED = {"compact": compact, "published": published}
