"""The codecs that a benchmark compares, behind one interface.

Peers have random weights: what they compute costs the same, and nothing is downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from simvq_audio.codec import Codec
from simvq_audio.device import find_device
from simvq_audio.errors import ConfigError, needs_extra
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.published_import import published
from simvq_audio.model.storage import save_model

SAMPLE_RATE = 24_000


class Coder(Protocol):
    """A codec of 24 kHz mono.

    Attributes:
        name: as it was asked for.
        detail: what it is, in a few words.
    """

    name: str
    detail: str

    def encode(self, waveforms: Tensor) -> Any:
        """Encode (batch, samples) on the coder's device."""

    def decode(self, codes: Any) -> Any:
        """Decode the output of ``encode``."""


class OurCoder:
    """A ``Codec``: the embedded model, a model file, or the published architecture."""

    def __init__(self, name: str, codec: Codec) -> None:
        self.name = name
        self.codec = codec
        self.detail = f"{codec.name}, {codec.bitrate / 1000:.3g} kbit/s"

    def encode(self, waveforms: Tensor) -> Any:
        """See ``Coder``."""
        if len(waveforms) == 1:
            return [self.codec.encode(waveforms[0], SAMPLE_RATE)]
        return self.codec.encode_batch(list(waveforms), SAMPLE_RATE)

    def decode(self, codes: Any) -> Any:
        """See ``Coder``."""
        return self.codec.decode(codes[0]) if len(codes) == 1 else self.codec.decode_batch(codes)


class PeerCoder:
    """A model of another package."""

    def __init__(
        self,
        name: str,
        detail: str,
        model: torch.nn.Module,
        device: torch.device,
        encode: Callable[[Any, Tensor], Any],
        decode: Callable[[Any, Any], Any],
    ) -> None:
        self.name = name
        self.detail = detail
        self._model = model.eval().to(device)
        self._device = device
        self._encode = encode
        self._decode = decode

    @torch.inference_mode()
    def encode(self, waveforms: Tensor) -> Any:
        """See ``Coder``."""
        return self._encode(self._model, waveforms[:, None].to(self._device))

    @torch.inference_mode()
    def decode(self, codes: Any) -> Any:
        """See ``Coder``."""
        return self._decode(self._model, codes)


def _published(device: torch.device) -> Coder:
    config = published(8192)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "published.safetensors")
        save_model(path, config, Autoencoder(config).state_dict())
        return OurCoder("published", Codec.load(path, device=device))


def _encodec(device: torch.device) -> Coder:
    with needs_extra("benchmark"):
        from transformers import EncodecConfig, EncodecModel

    def encode(model: Any, audio: Tensor) -> Any:
        return model.encode(audio, bandwidth=6.0)

    def decode(model: Any, codes: Any) -> Any:
        return model.decode(codes.audio_codes, codes.audio_scales)

    model = EncodecModel(EncodecConfig())
    return PeerCoder("encodec", "24 kHz, 6 kbit/s", model, device, encode, decode)


def _dac(device: torch.device) -> Coder:
    with needs_extra("benchmark"):
        from transformers import DacConfig, DacModel

    # Of the published 24 kHz model.
    config = DacConfig(
        downsampling_ratios=[2, 4, 5, 8],
        n_codebooks=32,
        sampling_rate=SAMPLE_RATE,
    )

    def encode(model: Any, audio: Tensor) -> Any:
        return model.encode(audio).audio_codes

    def decode(model: Any, codes: Any) -> Any:
        return model.decode(audio_codes=codes)

    return PeerCoder("dac", "24 kHz, 24 kbit/s", DacModel(config), device, encode, decode)


def _mimi(device: torch.device) -> Coder:
    with needs_extra("benchmark"):
        from transformers import MimiConfig, MimiModel

    def encode(model: Any, audio: Tensor) -> Any:
        return model.encode(audio, num_quantizers=8).audio_codes

    def decode(model: Any, codes: Any) -> Any:
        return model.decode(codes)

    return PeerCoder("mimi", "24 kHz, 1.1 kbit/s", MimiModel(MimiConfig()), device, encode, decode)


def _snac(device: torch.device) -> Coder:
    with needs_extra("benchmark"):
        from snac import SNAC

    # Of the published 24 kHz model.
    model = SNAC(
        sampling_rate=SAMPLE_RATE,
        encoder_dim=48,
        encoder_rates=[2, 4, 8, 8],
        decoder_dim=1024,
        decoder_rates=[8, 8, 4, 2],
        attn_window_size=None,
        codebook_size=4096,
        codebook_dim=8,
        vq_strides=[4, 2, 1],
    )

    def encode(model: Any, audio: Tensor) -> Any:
        return model.encode(audio)

    def decode(model: Any, codes: Any) -> Any:
        return model.decode(codes)

    return PeerCoder("snac", "24 kHz, 0.98 kbit/s", model, device, encode, decode)


_PEERS: dict[str, Callable[[torch.device], Coder]] = {
    "encodec": _encodec,
    "dac": _dac,
    "mimi": _mimi,
    "snac": _snac,
    "published": _published,
}
PEERS = tuple(_PEERS)


def make_coder(name: str, device: str, model: str | None = None) -> Coder:
    """Build a coder.

    Args:
        name: one of ``PEERS``, or another name for the model that ``model`` is.
        device: as for ``Codec.load``.
        model: as for ``Codec.load``.

    Raises:
        MissingExtraError: its package is not installed.
        ModelError, ConfigError: as for ``Codec.load``.
    """
    torch.manual_seed(0)
    if name in _PEERS:
        return _PEERS[name](find_device(device))
    return OurCoder(name, Codec.load(model, device=device))


def check_peers(names: list[str]) -> None:
    """Refuse names of peers that there are not, or twice.

    Raises:
        ConfigError: there is one.
    """
    for name in names:
        if name not in _PEERS:
            raise ConfigError(f"{name!r} is no peer; there are {', '.join(PEERS)}")
    if len(set(names)) < len(names):
        raise ConfigError("a peer is named twice")
