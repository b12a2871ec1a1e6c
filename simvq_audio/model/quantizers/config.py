"""Configurations of the quantisers, checked when they are made."""

from __future__ import annotations

import dataclasses
from math import ceil, log2, prod
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from simvq_audio.schema import Count, Flag, Fraction, by_kind, configuration

MAX_CODEBOOK_SIZE = 262_144

CodebookSize = Annotated[int, Field(strict=True, ge=2, le=MAX_CODEBOOK_SIZE)]


class _Codebooks:
    """Properties that follow from the sizes of the codebooks."""

    codebook_sizes: tuple[int, ...]

    @property
    def bits_per_frame(self) -> int:
        """Bits per frame, with a whole number of bits for each index."""
        return sum(ceil(log2(size)) for size in self.codebook_sizes)


class _OneCodebook(_Codebooks):
    codebook_size: int

    @property
    def codebook_sizes(self) -> tuple[int, ...]:  # type: ignore[override]
        """Entries of each codebook."""
        return (self.codebook_size,)


@configuration
class SimVQConfig(_OneCodebook):
    """SimVQ (arXiv 2411.02038): a frozen basis under one linear layer.

    Attributes:
        codebook_size: entries, 2 to 262 144.
        latent_dim: width of the latent and of each entry.
        bias: whether the linear layer has one (the published audio code does, the paper does not).
        basis: "frozen" as in the paper; "trained": it learns like any other weight; "fast": it
            learns at the learning rate of the linear layer.
        rotation: the gradient goes through the rotation from latent to entry (arXiv 2410.06424)
            instead of straight through.
    """

    kind: Literal["simvq"] = "simvq"
    codebook_size: CodebookSize = 8192
    latent_dim: Count = 64
    bias: Flag = True
    basis: Literal["frozen", "trained", "fast"] = "frozen"
    rotation: Flag = False


@configuration
class VQConfig(_OneCodebook):
    """Plain vector quantisation (VQ-VAE, arXiv 1711.00937): a table that learns by its gradient.

    Attributes:
        codebook_size: entries, 2 to 262 144.
        latent_dim: width of the latent and of each entry.
    """

    kind: Literal["vq"] = "vq"
    codebook_size: CodebookSize = 8192
    latent_dim: Count = 64


@configuration
class EmaVQConfig(_OneCodebook):
    """A table of moving averages of the latents next to each entry (arXiv 1711.00937, A.1).

    Attributes:
        codebook_size: entries, 2 to 262 144.
        latent_dim: width of the latent and of each entry.
        decay: of the averages, per training step.
        dead_share: entries chosen less often than this share of the mean are moved to a latent of
            the batch (Jukebox, arXiv 2005.00341); 0 moves none.
    """

    kind: Literal["ema"] = "ema"
    codebook_size: CodebookSize = 8192
    latent_dim: Count = 64
    decay: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.95
    dead_share: Fraction = 0.1


@configuration
class FactorisedVQConfig(_OneCodebook):
    """Factorised VQ: unit vectors in few dimensions (ViT-VQGAN, arXiv 2110.04627).

    Attributes:
        codebook_size: entries, 2 to 262 144.
        latent_dim: width of the latent; linear layers map to the entries' width and back.
        code_dim: width of the entries.
    """

    kind: Literal["factorised"] = "factorised"
    codebook_size: CodebookSize = 8192
    latent_dim: Count = 64
    code_dim: Annotated[int, Field(strict=True, ge=2)] = 8

    def __post_init__(self) -> None:
        if self.code_dim > self.latent_dim:
            raise ValueError(
                f"code_dim must not be above latent_dim, {self.latent_dim}, not {self.code_dim}"
            )


@configuration
class FSQConfig(_OneCodebook):
    """Finite scalar quantisation (arXiv 2309.15505): a grid in few dimensions.

    Attributes:
        levels: values of each dimension; their product is the codebook's size.
        latent_dim: width of the latent; linear layers map to the grid and back.
    """

    kind: Literal["fsq"] = "fsq"
    levels: Annotated[tuple[Annotated[int, Field(strict=True, ge=2)], ...], Field(min_length=1)] = (
        8,
        8,
        8,
        4,
        4,
    )
    latent_dim: Count = 64

    def __post_init__(self) -> None:
        if not 2 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"the product of levels must not be above {MAX_CODEBOOK_SIZE}, "
                f"not {self.codebook_size}"
            )

    @property
    def codebook_size(self) -> int:  # type: ignore[override]
        """Points of the grid."""
        return prod(self.levels)


StageConfig: TypeAlias = Annotated[
    Annotated[SimVQConfig, Tag("simvq")]
    | Annotated[VQConfig, Tag("vq")]
    | Annotated[EmaVQConfig, Tag("ema")],
    by_kind("simvq"),
]


@configuration
class ResidualConfig(_Codebooks):
    """Residual vector quantisation (SoundStream, arXiv 2107.03312): several codes per frame.

    Attributes:
        stages: quantisers with one codebook each; each codes the residual of the ones before.
    """

    kind: Literal["residual"] = "residual"
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=2, max_length=32)]

    def __post_init__(self) -> None:
        widths = sorted({stage.latent_dim for stage in self.stages})
        if len(widths) > 1:
            raise ValueError(
                f"all stages must have the same latent_dim, not {' and '.join(map(str, widths))}"
            )

    @property
    def latent_dim(self) -> int:
        """Width of the latent."""
        return self.stages[0].latent_dim

    @property
    def codebook_sizes(self) -> tuple[int, ...]:  # type: ignore[override]
        """Entries of each stage."""
        return tuple(stage.codebook_size for stage in self.stages)


@configuration
class PackageConfig(_Codebooks):
    """A quantiser of vector-quantize-pytorch; that package must be installed to use the model.

    Attributes:
        name: of the class, such as "VectorQuantize", "ResidualVQ", "FSQ", "LFQ" or "SimVQ".
        latent_dim: width of the latent.
        codebook_sizes: entries of each codebook; must agree with ``options``.
        options: further arguments of the class.
        fast: its parameters have the quantiser's learning rate.
    """

    kind: Literal["package"] = "package"
    name: str
    latent_dim: Count = 64
    codebook_sizes: Annotated[tuple[CodebookSize, ...], Field(min_length=1, max_length=32)]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: Flag = False


QuantizerConfig: TypeAlias = Annotated[
    Annotated[SimVQConfig, Tag("simvq")]
    | Annotated[VQConfig, Tag("vq")]
    | Annotated[EmaVQConfig, Tag("ema")]
    | Annotated[FactorisedVQConfig, Tag("factorised")]
    | Annotated[FSQConfig, Tag("fsq")]
    | Annotated[ResidualConfig, Tag("residual")]
    | Annotated[PackageConfig, Tag("package")],
    by_kind("simvq"),
]
