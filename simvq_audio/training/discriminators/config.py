"""Configurations of the discriminators, checked when made.

A ``DiscriminatorConfig`` has families, each with a ``kind`` that ``discriminators/__init__.py``
maps to a network, and with its kinds of loss.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from simvq_audio.schema import Count, Counts, Flag, Natural, Positive, by_kind, configuration, plain

_Window = Annotated[int, Field(strict=True, ge=16)]
_Windows = Annotated[tuple[_Window, ...], Field(min_length=1)]


@configuration
class FamilyConfig:
    """Settings common to all families of sub-discriminators.

    Attributes:
        gan: "hinge" (relu(1 - real) + relu(1 + fake); relu(1 - fake) for the generator, as in
            EnCodec and Vocos) or "least_squares" ((1 - real)^2 + fake^2; (1 - fake)^2).
        reduction: of the sub-discriminators' losses, "mean" or "sum".
        feature_matching: "l1", mean absolute difference summed over layers (HiFi-GAN, DAC), or
            "relative", divided by the real features' mean magnitude and averaged over layers
            (EnCodec).
        first_feature: index of the first layer whose features are matched.
        match_scores: count the score map as one more layer of features.
        normalize: remove each item's mean and scale its peak to 0.8 (DAC).
        weight: of all the family's losses, of generator and discriminators.
    """

    gan: Literal["hinge", "least_squares"] = "hinge"
    reduction: Literal["mean", "sum"] = "mean"
    feature_matching: Literal["l1", "relative"] = "l1"
    first_feature: Natural = 0
    match_scores: Flag = False
    normalize: Flag = False
    weight: Positive = 1.0

    def __post_init__(self) -> None:
        if self.first_feature >= self.layers:
            raise ValueError(
                f"first_feature must be below {self.layers}, the number of layers, "
                f"not {self.first_feature}"
            )

    @property
    def layers(self) -> int:
        """Feature tensors of each sub-discriminator."""
        raise NotImplementedError


@configuration
class StftDiscriminatorConfig(FamilyConfig):
    """EnCodec's complex multi-scale STFT discriminator (arXiv 2210.13438).

    Attributes:
        n_ffts: window lengths in samples, a sub-discriminator each; the hop is a quarter of it.
        channels: of the convolutions (32 in EnCodec).
        compression: power that magnitudes are raised to before the first layer; 1 in EnCodec. Below
            1, quiet parts of the spectrum get more weight, and the discriminators learn faster.
    """

    kind: Literal["stft"] = "stft"
    feature_matching: Literal["l1", "relative"] = "relative"
    n_ffts: _Windows = (2048, 1024, 512)
    channels: Count = 32
    compression: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0

    @property
    def layers(self) -> int:
        return 5


@configuration
class ContrastDiscriminatorConfig(FamilyConfig):
    """Local contrast of log magnitudes; for short runs on a CPU.

    Attributes:
        n_ffts: window lengths in samples, a sub-discriminator each; the hop is a quarter of it.
        channels: of the convolutions.
    """

    kind: Literal["contrast"] = "contrast"
    feature_matching: Literal["l1", "relative"] = "relative"
    n_ffts: _Windows = (1024, 512)
    channels: Count = 16

    @property
    def layers(self) -> int:
        return 5


@configuration
class PeriodDiscriminatorConfig(FamilyConfig):
    """The multi-period discriminator of HiFi-GAN (arXiv 2010.05646).

    Attributes:
        periods: in samples, a sub-discriminator each.
        channels: of each layer; all but the last stride by 3.
    """

    kind: Literal["period"] = "period"
    periods: Counts = (2, 3, 5, 7, 11)
    channels: Counts = (32, 128, 512, 1024, 1024)

    @property
    def layers(self) -> int:
        return len(self.channels)


@configuration
class ResolutionDiscriminatorConfig(FamilyConfig):
    """The multi-resolution magnitude discriminator of UnivNet (arXiv 2106.07889), as in Vocos.

    Attributes:
        resolutions: pairs of (window length, hop) in samples, a sub-discriminator each.
        channels: of the convolutions.
    """

    kind: Literal["resolution"] = "resolution"
    resolutions: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)] = (
        (1024, 256),
        (2048, 512),
        (512, 128),
    )
    channels: Count = 64

    @property
    def layers(self) -> int:
        return 5


@configuration
class BandDiscriminatorConfig(FamilyConfig):
    """DAC's complex STFT discriminator with a stack of layers for every band (arXiv 2306.06546).

    Attributes:
        n_ffts: window lengths in samples, a sub-discriminator each; the hop is a quarter of it.
        bands: edges of the bands from 0 to 1, as fractions of the Nyquist frequency.
        channels: of the convolutions.
    """

    kind: Literal["band"] = "band"
    n_ffts: _Windows = (2048, 1024, 512)
    bands: Annotated[
        tuple[Annotated[float, Field(strict=True, ge=0, le=1)], ...], Field(min_length=2)
    ] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    channels: Count = 32

    def __post_init__(self) -> None:
        edges = list(pairwise(self.bands))
        if not all(low < high for low, high in edges):
            raise ValueError(f"bands must be rising fractions from 0 to 1, not {self.bands}")
        bins = min(self.n_ffts) // 2 + 1
        if not all(int(low * bins) < int(high * bins) for low, high in edges):
            raise ValueError(f"bands has a band without a bin at n_fft {min(self.n_ffts)}")
        super().__post_init__()

    @property
    def layers(self) -> int:
        return 5 * (len(self.bands) - 1)


Family: TypeAlias = Annotated[
    Annotated[StftDiscriminatorConfig, Tag("stft")]
    | Annotated[ContrastDiscriminatorConfig, Tag("contrast")]
    | Annotated[PeriodDiscriminatorConfig, Tag("period")]
    | Annotated[ResolutionDiscriminatorConfig, Tag("resolution")]
    | Annotated[BandDiscriminatorConfig, Tag("band")],
    by_kind(""),
]


@configuration
class DiscriminatorConfig:
    """The families that judge the generator; their weighted losses are summed.

    The same kind may be there more than once: each entry has weights of its own.
    """

    families: Annotated[tuple[Family, ...], Field(min_length=1)]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that ``parse`` takes back."""
        return plain(self)


def published() -> DiscriminatorConfig:
    """The published SimVQ audio model's: Vocos' two families, then DAC's two.

    Source: VQSTFTWithDiscriminator in github youngsheen/SimVQ. All weights there are 1. Vocos'
    multi-period discriminators leave their first layer out of feature matching and count the score
    in; DAC's do the opposite.
    """
    vocos: dict[str, Any] = {"gan": "hinge", "reduction": "mean", "match_scores": True}
    dac: dict[str, Any] = {"gan": "least_squares", "reduction": "sum", "normalize": True}
    return DiscriminatorConfig(
        families=(
            PeriodDiscriminatorConfig(**vocos, first_feature=1),
            ResolutionDiscriminatorConfig(**vocos),
            PeriodDiscriminatorConfig(**dac),
            BandDiscriminatorConfig(**dac),
        )
    )


def compact() -> DiscriminatorConfig:
    """What a CPU can carry: EnCodec's multi-scale STFT at half width, a light multi-period."""
    return DiscriminatorConfig(
        families=(
            StftDiscriminatorConfig(channels=16, compression=0.4),
            PeriodDiscriminatorConfig(channels=(16, 32, 64, 128, 128), feature_matching="relative"),
        )
    )


_NAMED = {"compact": compact, "published": published}


def named(values: Any) -> Any:
    """The configuration that a name stands for; anything else as it is.

    Raises:
        ValueError: no configuration has that name.
    """
    if not isinstance(values, str):
        return values
    if values not in _NAMED:
        raise ValueError(f"must be {' or '.join(map(repr, _NAMED))} or a table, not {values!r}")
    return _NAMED[values]()
