"""The codec: recordings to codes and back, whole, in pieces as they arrive, or folder by folder."""

from __future__ import annotations

from simvq_audio.codec.codec import Codec
from simvq_audio.codec.streams import StreamDecoder, StreamEncoder

__all__ = ["Codec", "StreamDecoder", "StreamEncoder"]
