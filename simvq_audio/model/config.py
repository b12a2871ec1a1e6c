"""What a model is built from: frozen dataclasses, checked at construction, kept in the model file.

A ``ModelConfig`` names an encoder, a quantiser and a decoder. Each encoder configuration has a
``kind``; ``autoencoder.py`` maps kinds to modules, and nothing else asks for them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from math import ceil, log2, prod
from typing import Any, ClassVar, TypeAlias

from simvq_audio.config_checks import require, require_at_least, whole_numbers
from simvq_audio.errors import ConfigError

MAX_CODEBOOK_SIZE = 262_144


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        require_at_least(config, name, 1)


@dataclass(frozen=True)
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

    kind: ClassVar[str] = "spectral"
    n_fft: int = 1280
    hop_length: int = 320
    compression: float = 0.3
    dim: int = 320
    hidden_dim: int = 960
    blocks: int = 6
    kernel_size: int = 7
    bins: int | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "n_fft", "hop_length", "dim", "hidden_dim", "blocks", "kernel_size")
        if self.bins is not None:
            _require_positive(self, "bins")
            require(
                self.bins <= self.n_fft // 2 + 1,
                f"bins must not be above n_fft / 2 + 1 = {self.n_fft // 2 + 1}, not {self.bins}",
            )
        require(self.n_fft >= self.hop_length, "n_fft must not be below hop_length")
        require((self.n_fft - self.hop_length) % 2 == 0, "n_fft - hop_length must be even")
        require(self.kernel_size % 2 == 1, "kernel_size must be odd")
        require(0 < self.compression <= 1, "compression must lie in (0, 1]")


@dataclass(frozen=True)
class SeanetEncoderConfig:
    """EnCodec's causal SEANet encoder: strided convolutions on the waveform, then an LSTM.

    Attributes:
        filters: channels after the first convolution; doubled at each stride.
        strides: in the order that the waveform meets them; their product is the hop length.
        kernel_size, last_kernel_size, residual_kernel_size: in samples of their stage.
        compress: how much narrower the residual blocks are inside.
        lstm_layers: layers of the LSTM behind the last stage.
    """

    kind: ClassVar[str] = "seanet"
    filters: int = 32
    strides: tuple[int, ...] = (2, 4, 5, 8)
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    compress: int = 2
    lstm_layers: int = 2

    def __post_init__(self) -> None:
        whole_numbers(self, "strides")
        _require_positive(
            self,
            "filters",
            "kernel_size",
            "last_kernel_size",
            "residual_kernel_size",
            "compress",
            "lstm_layers",
        )
        require(self.compress <= self.filters, "compress must not be above filters")

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return prod(self.strides)


@dataclass(frozen=True)
class QuantizerConfig:
    """SimVQ (arXiv 2411.02038): a frozen basis under one linear layer.

    Attributes:
        codebook_size: entries, 2 to 262 144.
        latent_dim: width of the latent and of each entry.
        bias: whether the linear layer has one (the published audio code does, the paper does not).
    """

    kind: ClassVar[str] = "simvq"
    codebook_size: int = 8192
    latent_dim: int = 64
    bias: bool = True

    def __post_init__(self) -> None:
        _require_positive(self, "codebook_size", "latent_dim")
        require(
            2 <= self.codebook_size <= MAX_CODEBOOK_SIZE,
            f"codebook_size must lie between 2 and {MAX_CODEBOOK_SIZE}, not {self.codebook_size}",
        )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries of each codebook that a frame has an index into."""
        return (self.codebook_size,)

    @property
    def bits_per_code(self) -> int:
        """Bits that one index takes."""
        return ceil(log2(self.codebook_size))


@dataclass(frozen=True)
class DecoderConfig:
    """Vocos-like decoder: a ConvNeXt backbone at frame rate and an inverse STFT head.

    Attributes:
        dim, hidden_dim, blocks, kernel_size: the ConvNeXt stack.
        attention_prenet: put WavTokenizer's residual and attention blocks before the stack. They
            see the whole utterance, so the decoder's receptive field is no longer finite.
        overlap_frames: frames of context on either side of a chunk when the receptive field is
            not finite (ignored otherwise: then the context is what exactness needs).
        n_fft: inverse STFT window in samples.
        hop_length: samples a frame; must be the encoder's.
    """

    dim: int = 384
    hidden_dim: int = 1152
    blocks: int = 8
    kernel_size: int = 7
    attention_prenet: bool = False
    overlap_frames: int = 150
    n_fft: int = 1280
    hop_length: int = 320

    def __post_init__(self) -> None:
        _require_positive(self, "dim", "hidden_dim", "blocks", "kernel_size", "overlap_frames")
        _require_positive(self, "n_fft", "hop_length")
        require(self.n_fft >= self.hop_length, "n_fft must not be below hop_length")
        require((self.n_fft - self.hop_length) % 2 == 0, "n_fft - hop_length must be even")
        require(self.kernel_size % 2 == 1, "kernel_size must be odd")
        require(
            not self.attention_prenet or self.dim % 32 == 0,
            "dim must be a multiple of 32 with attention_prenet (GroupNorm has 32 groups)",
        )


EncoderConfig: TypeAlias = SpectralEncoderConfig | SeanetEncoderConfig
_ENCODER_KINDS = {config.kind: config for config in (SpectralEncoderConfig, SeanetEncoderConfig)}


@dataclass(frozen=True)
class ModelConfig:
    """A whole codec model.

    Attributes:
        name: what ``simvq-audio models`` and ``info`` call it.
        sample_rate: in Hz; every input is resampled to it.
    """

    name: str = "compact"
    sample_rate: int = 24_000
    encoder: EncoderConfig = field(default_factory=SpectralEncoderConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        _require_positive(self, "sample_rate")
        require(
            self.encoder.hop_length == self.decoder.hop_length,
            f"the encoder's hop length ({self.encoder.hop_length}) is not the decoder's "
            f"({self.decoder.hop_length})",
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
        return self.frame_rate * self.quantizer.bits_per_code

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that ``from_dict`` takes back."""
        result = dataclasses.asdict(self)
        # What is not set is left out: settings that come later must not change the model_id of
        # models that do without them.
        encoder = {name: value for name, value in result["encoder"].items() if value is not None}
        result["encoder"] = {"kind": self.encoder.kind, **encoder}
        return result

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from nested plain values, as read from TOML or a model file.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        values = dict(values)
        for key, make in (
            ("encoder", _encoder_from_dict),
            ("quantizer", lambda v: from_plain(QuantizerConfig, v, "quantizer")),
            ("decoder", lambda v: from_plain(DecoderConfig, v, "decoder")),
        ):
            if key in values:
                values[key] = make(values[key])
        return from_plain(cls, values, "model")


def without_training_settings(values: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration as older files hold it, without what has moved to training's."""
    values = dict(values)
    if isinstance(values.get("quantizer"), dict):
        values["quantizer"] = {n: v for n, v in values["quantizer"].items() if n != "commitment"}
    return values


def from_plain(cls: type, values: Any, where: str) -> Any:
    """Build the dataclass ``cls`` from a table of plain values, naming what does not fit.

    Raises:
        ConfigError: ``values`` is no table, or holds a key or a type that ``cls`` does not have.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table of settings, not {values!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"unknown key {unknown[0]!r} in {where}; known keys: {', '.join(sorted(known))}"
        )
    for name, value in values.items():
        default = known[name].default
        # TOML and JSON write 1 for 1.0, and lists for tuples; anything else must match.
        if isinstance(default, float) and type(value) is int:
            values = {**values, name: float(value)}
        elif isinstance(default, tuple) and isinstance(value, list):
            values = {**values, name: tuple(value)}
        elif isinstance(default, (bool, int, float, str)) and type(value) is not type(default):
            raise ConfigError(
                f"{where}.{name} must be of type {type(default).__name__}, not {value!r}"
            )
    return cls(**values)


def _encoder_from_dict(values: Any) -> EncoderConfig:
    if not isinstance(values, dict):
        raise ConfigError(f"encoder must be a table of settings, not {values!r}")
    values = dict(values)
    kind = values.pop("kind", "spectral")
    if kind not in _ENCODER_KINDS:
        raise ConfigError(f"unknown encoder kind {kind!r}; known: {', '.join(_ENCODER_KINDS)}")
    return from_plain(_ENCODER_KINDS[kind], values, "encoder")


def published(codebook_size: int = 4096) -> ModelConfig:
    """The SimVQ audio model as published: SEANet, SimVQ-512, attention backbone, iSTFT head."""
    return ModelConfig(
        name="published",
        encoder=SeanetEncoderConfig(),
        quantizer=QuantizerConfig(codebook_size=codebook_size, latent_dim=512),
        decoder=DecoderConfig(
            dim=768, hidden_dim=2304, blocks=12, kernel_size=7, attention_prenet=True
        ),
    )


def compact() -> ModelConfig:
    """The model that ships: everything at 75 frames/s, finite receptive field, 975 bit/s."""
    # What lies above 7.4 kHz is inferred: that is where speech recorded at 16 kHz begins to end.
    return ModelConfig(name="compact", encoder=SpectralEncoderConfig(bins=395))
