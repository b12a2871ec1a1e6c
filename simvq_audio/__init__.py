"""A neural speech codec at about 1 kbit/s, with SimVQ as its bottleneck.

>>> from simvq_audio import Codec
>>> codec = Codec.load()
>>> codes = codec.encode(waveform, sample_rate)
>>> waveform = codec.decode(codes)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from simvq_audio.errors import (
    AudioError,
    CodesError,
    ConfigError,
    MissingExtraError,
    ModelError,
    SimvqAudioError,
)

if TYPE_CHECKING:
    from simvq_audio.bitstream import Codes
    from simvq_audio.codec import Codec

try:
    __version__ = version("simvq-audio")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = [
    "AudioError",
    "Codec",
    "Codes",
    "CodesError",
    "ConfigError",
    "MissingExtraError",
    "ModelError",
    "SimvqAudioError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Codec brings torch, which takes seconds: 'simvq-audio --help' must not wait for it.
    if name == "Codec":
        from simvq_audio.codec import Codec

        return Codec
    if name == "Codes":
        from simvq_audio.bitstream import Codes

        return Codes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
