"""The codec without torch: onnxruntime, numpy, soundfile and soxr are all that it needs.

>>> from simvq_audio.onnx import Codec
>>> codec = Codec.load()
>>> codes = codec.encode(waveform, sample_rate)
>>> waveform = codec.decode(codes)
"""

from __future__ import annotations

from simvq_audio.onnx.codec import Codec

__all__ = ["Codec"]
