"""What a model is built from: configurations, checked when they are made, kept in the model file.

A ``ModelConfig`` names an encoder, a quantiser and a decoder. Encoders and quantisers come in
kinds; ``autoencoder.py`` and ``quantizers/__init__.py`` map each ``kind`` to its module, and
nothing else asks for it.
"""

from __future__ import annotations

import dataclasses
from math import ceil, log2, prod
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from simvq_audio.schema import (
    Count,
    Counts,
    Flag,
    Fraction,
    by_kind,
    configuration,
    parse,
    plain,
)

MAX_CODEBOOK_SIZE = 262_144

CodebookSize = Annotated[int, Field(strict=True, ge=2, le=MAX_CODEBOOK_SIZE)]


@configuration
class SpectralEncoderConfig:
    """STFT front end, ConvNeXt blocks at frame rate, a linear layer to the latent.

    Attributes:
        n_fft: STFT window in samples; even, at least ``hop_length``.
        hop_length: samples a frame.
        compression: power that magnitudes are raised to before the first layer.
        dim, hidden_dim, blocks, kernel_size: the ConvNeXt stack.
        bins: how many STFT bins the first layer sees, from 0 Hz on; None: all n_fft / 2 + 1. What
            lies above is left to the decoder to infer: where speech of several bandwidths is
            coded, a code that has to tell them apart says less about the speech.
    """

    kind: Literal["spectral"] = "spectral"
    n_fft: Count = 1280
    hop_length: Count = 320
    compression: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.3
    dim: Count = 320
    hidden_dim: Count = 960
    blocks: Count = 6
    kernel_size: Count = 7
    bins: Count | None = None

    def __post_init__(self) -> None:
        _check_window(self.n_fft, self.hop_length)
        _check_kernel(self.kernel_size)
        if self.bins is not None and self.bins > self.n_fft // 2 + 1:
            raise ValueError(
                f"bins must not be above n_fft / 2 + 1 = {self.n_fft // 2 + 1}, not {self.bins}"
            )


@configuration
class SeanetEncoderConfig:
    """EnCodec's causal SEANet encoder: strided convolutions on the waveform, then an LSTM.

    Attributes:
        filters: channels after the first convolution; doubled at each stride.
        strides: in the order that the waveform meets them; their product is the hop length.
        kernel_size, last_kernel_size, residual_kernel_size: in samples of their stage.
        compress: how much narrower the residual blocks are inside.
        lstm_layers: layers of the LSTM behind the last stage.
    """

    kind: Literal["seanet"] = "seanet"
    filters: Count = 32
    strides: Counts = (2, 4, 5, 8)
    kernel_size: Count = 7
    last_kernel_size: Count = 7
    residual_kernel_size: Count = 3
    compress: Count = 2
    lstm_layers: Count = 2

    def __post_init__(self) -> None:
        if self.compress > self.filters:
            raise ValueError("compress must not be above filters")

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return prod(self.strides)


class _Codebooks:
    """What follows from the sizes of a quantiser's codebooks."""

    codebook_sizes: tuple[int, ...]

    @property
    def codes_per_frame(self) -> int:
        """How many indices stand for a frame."""
        return len(self.codebook_sizes)

    @property
    def bits_per_frame(self) -> int:
        """Bits that the indices of a frame take, each in a whole number of bits."""
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
        decay: of the averages, a training step.
        dead_share: an entry that is chosen this much more rarely than the mean is moved to a latent
            of the batch (Jukebox, arXiv 2005.00341); 0 leaves it where it is.
    """

    kind: Literal["ema"] = "ema"
    codebook_size: CodebookSize = 8192
    latent_dim: Count = 64
    decay: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.95
    dead_share: Fraction = 0.1


@configuration
class FSQConfig(_OneCodebook):
    """Finite scalar quantisation (arXiv 2309.15505): a grid in few dimensions.

    Attributes:
        levels: values of each dimension; their product is the codebook's size.
        latent_dim: width of the latent; linear layers lead to the grid and back.
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
    """Residual vector quantisation (SoundStream, arXiv 2107.03312): several codes a frame.

    Attributes:
        stages: quantisers with one codebook each; every one codes what the ones before it left.
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
    """A quantiser of vector-quantize-pytorch; needs that package wherever the model is used.

    Attributes:
        name: of the class there, such as "VectorQuantize", "ResidualVQ", "FSQ", "LFQ" or "SimVQ".
        latent_dim: width of the latent.
        codebook_sizes: entries of each codebook; what the class makes of ``options`` must agree.
        options: further arguments of the class.
        fast: its parameters learn at the quantiser's learning rate.
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
    | Annotated[FSQConfig, Tag("fsq")]
    | Annotated[ResidualConfig, Tag("residual")]
    | Annotated[PackageConfig, Tag("package")],
    by_kind("simvq"),
]


EncoderConfig: TypeAlias = Annotated[
    Annotated[SpectralEncoderConfig, Tag("spectral")]
    | Annotated[SeanetEncoderConfig, Tag("seanet")],
    by_kind("spectral"),
]


@configuration
class VocosDecoderConfig:
    """Vocos-like decoder: a ConvNeXt backbone at frame rate and an inverse STFT head.

    Attributes:
        dim, hidden_dim, blocks, kernel_size: the ConvNeXt stack.
        attention_prenet: put WavTokenizer's residual and attention blocks before the stack. They
            see the whole utterance, so the decoder's receptive field is no longer finite.
        n_fft: inverse STFT window in samples.
        hop_length: samples a frame; must be the encoder's.
    """

    kind: Literal["vocos"] = "vocos"
    dim: Count = 384
    hidden_dim: Count = 1152
    blocks: Count = 8
    kernel_size: Count = 7
    attention_prenet: Flag = False
    n_fft: Count = 1280
    hop_length: Count = 320

    def __post_init__(self) -> None:
        _check_window(self.n_fft, self.hop_length)
        _check_kernel(self.kernel_size)
        if self.attention_prenet and self.dim % 32:
            raise ValueError(
                "dim must be a multiple of 32 with attention_prenet (GroupNorm has 32 groups)"
            )


@configuration
class ModelConfig:
    """A whole codec model.

    Attributes:
        name: what ``simvq-audio models`` and ``info`` call it.
        sample_rate: in Hz; every input is resampled to it.
    """

    name: str = "compact"
    sample_rate: Count = 24_000
    encoder: EncoderConfig = dataclasses.field(default_factory=SpectralEncoderConfig)
    quantizer: QuantizerConfig = dataclasses.field(default_factory=SimVQConfig)
    decoder: VocosDecoderConfig = dataclasses.field(default_factory=VocosDecoderConfig)

    def __post_init__(self) -> None:
        if self.encoder.hop_length != self.decoder.hop_length:
            raise ValueError(
                f"the encoder's hop length ({self.encoder.hop_length}) is not the decoder's "
                f"({self.decoder.hop_length})"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.encoder.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Payload bits a second of one channel."""
        return self.frame_rate * self.quantizer.bits_per_frame

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that ``from_dict`` takes back."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Any) -> ModelConfig:
        """Build from nested plain values, as read from TOML.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        return parse(cls, values, "model")


def without_training_settings(values: Any) -> Any:
    """A configuration as older model files hold it, without what is no part of the model.

    Until version 0.2 these were the weight of a training loss, and how far pieces overlap where a
    decoder's receptive field is not finite.
    """
    values = _without(values, "quantizer", "commitment")
    return _without(values, "decoder", "overlap_frames")


def _without(values: Any, table: str, key: str) -> Any:
    if not isinstance(values, dict) or not isinstance(values.get(table), dict):
        return values
    kept = {name: value for name, value in values[table].items() if name != key}
    return {**values, table: kept}


def _check_window(n_fft: int, hop_length: int) -> None:
    if n_fft < hop_length:
        raise ValueError("n_fft must not be below hop_length")
    if (n_fft - hop_length) % 2:
        raise ValueError("n_fft - hop_length must be even")


def _check_kernel(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise ValueError("kernel_size must be odd")


def published(codebook_size: int = 4096) -> ModelConfig:
    """The SimVQ audio model as published: SEANet, SimVQ-512, attention backbone, iSTFT head."""
    return ModelConfig(
        name="published",
        encoder=SeanetEncoderConfig(),
        quantizer=SimVQConfig(codebook_size=codebook_size, latent_dim=512),
        decoder=VocosDecoderConfig(
            dim=768, hidden_dim=2304, blocks=12, kernel_size=7, attention_prenet=True
        ),
    )
