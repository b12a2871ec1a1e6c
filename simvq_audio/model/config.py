"""Configurations of models, encoders and decoders, checked when made, kept in the model file.

Encoders and quantisers come in kinds. ``autoencoder.py`` and ``quantizers/__init__.py`` map each
``kind`` to its module; nothing else looks at it.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from simvq_audio.model.quantizers.config import QuantizerConfig, SimVQConfig
from simvq_audio.schema import (
    Count,
    Counts,
    Flag,
    Natural,
    by_kind,
    configuration,
    parse,
    plain,
)


@configuration
class SpectralEncoderConfig:
    """STFT front end, ConvNeXt blocks at frame rate, a linear layer to the latent.

    Attributes:
        n_fft: STFT window in samples; even, at least ``hop_length``.
        hop_length: samples per frame.
        compression: power that magnitudes are raised to before the first layer.
        dim, hidden_dim, blocks, kernel_size: the ConvNeXt stack.
        bins: number of STFT bins that the first layer sees, from 0 Hz; None: all n_fft / 2 + 1. The
            decoder must infer what is above. Codes then do not depend on the bandwidth of the
            recording, and say more about the speech.
        look_ahead_frames: frames after its own that the stack sees, in addition to half the STFT's
            window; None: all that its kernels reach. The taps beyond stay in the weights, unused,
            so that the weights of a model with more look-ahead fit.
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
    look_ahead_frames: Natural | None = None

    def __post_init__(self) -> None:
        _check_window(self.n_fft, self.hop_length)
        _check_kernel(self.kernel_size)
        _check_look_ahead(self.look_ahead_frames, self.blocks, self.kernel_size)
        if self.bins is not None and self.bins > self.n_fft // 2 + 1:
            raise ValueError(
                f"bins must not be above n_fft / 2 + 1 = {self.n_fft // 2 + 1}, not {self.bins}"
            )


@configuration
class SeanetEncoderConfig:
    """EnCodec's causal SEANet encoder: strided convolutions on the waveform, then an LSTM.

    Attributes:
        filters: channels after the first convolution; doubled at each stride.
        strides: of the stages in order; their product is the hop length.
        kernel_size, last_kernel_size, residual_kernel_size: in samples of their stage.
        compress: factor by which the residual blocks are narrower inside.
        lstm_layers: layers of the LSTM after the last stage.
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
        """Samples per frame."""
        return prod(self.strides)


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
            see the whole utterance, so the decoder's receptive field is not finite.
        n_fft: inverse STFT window in samples.
        hop_length: samples per frame; must be the encoder's.
        look_ahead_frames: as in the encoder, in addition to half the inverse STFT's window.
    """

    kind: Literal["vocos"] = "vocos"
    dim: Count = 384
    hidden_dim: Count = 1152
    blocks: Count = 8
    kernel_size: Count = 7
    attention_prenet: Flag = False
    n_fft: Count = 1280
    hop_length: Count = 320
    look_ahead_frames: Natural | None = None

    def __post_init__(self) -> None:
        _check_window(self.n_fft, self.hop_length)
        _check_kernel(self.kernel_size)
        # The first layer is a convolution, too.
        _check_look_ahead(self.look_ahead_frames, self.blocks + 1, self.kernel_size)
        if self.attention_prenet and self.look_ahead_frames is not None:
            raise ValueError("look_ahead_frames: attention_prenet sees the whole utterance")
        if self.attention_prenet and self.dim % 32:
            raise ValueError(
                "dim must be a multiple of 32 with attention_prenet (GroupNorm has 32 groups)"
            )


@configuration
class ModelConfig:
    """A whole codec model.

    Attributes:
        name: shown by ``simvq-audio models`` and ``info``.
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
        """Samples per frame."""
        return self.encoder.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Payload bits per second of one channel."""
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
    """A configuration from an older model file, without settings that are not part of the model.

    Before version 0.2 these were the weight of a training loss, and the overlap of pieces.
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


def _check_look_ahead(frames: int | None, layers: int, kernel_size: int) -> None:
    reach = layers * (kernel_size // 2)
    if frames is not None and frames > reach:
        raise ValueError(f"look_ahead_frames must not be above {reach}, which the kernels reach")


def _check_kernel(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise ValueError("kernel_size must be odd")
