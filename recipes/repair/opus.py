"""Opus by the system's libopus, with its own concealment of lost packets."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np

RATE = 16_000
FRAME = 320  # 20 ms
_VOIP = 2048
_SET_BITRATE, _SET_COMPLEXITY, _GET_LOOKAHEAD = 4002, 4010, 4027


def library() -> ctypes.CDLL | None:
    """libopus, or None."""
    name = ctypes.util.find_library("opus")
    if name is None:
        return None
    opus = ctypes.CDLL(name)
    opus.opus_encoder_create.restype = opus.opus_decoder_create.restype = ctypes.c_void_p
    return opus


def code(
    opus: ctypes.CDLL, audio: np.ndarray, lost: np.ndarray, bitrate: int
) -> tuple[np.ndarray, float]:
    """Code float32 (samples,) at 16 kHz and decode it, concealing lost frames of 20 ms.

    Args:
        lost: bool, at least as long as there are frames.

    Returns:
        float32 (samples,), aligned with ``audio``, and the bit rate reached.
    """
    error, delay = ctypes.c_int(), ctypes.c_int()
    encoder = ctypes.c_void_p(opus.opus_encoder_create(RATE, 1, _VOIP, ctypes.byref(error)))
    decoder = ctypes.c_void_p(opus.opus_decoder_create(RATE, 1, ctypes.byref(error)))
    opus.opus_encoder_ctl(encoder, _SET_BITRATE, ctypes.c_int(bitrate))
    opus.opus_encoder_ctl(encoder, _SET_COMPLEXITY, ctypes.c_int(10))
    opus.opus_encoder_ctl(encoder, _GET_LOOKAHEAD, ctypes.byref(delay))
    frames = -(-(len(audio) + delay.value) // FRAME)
    padded = np.zeros(frames * FRAME, np.float32)
    padded[: len(audio)] = audio
    packet = ctypes.create_string_buffer(1500)
    out, total = np.zeros(frames * FRAME, np.float32), 0
    pointer = ctypes.POINTER(ctypes.c_float)
    for i in range(frames):
        given = padded[i * FRAME : (i + 1) * FRAME].ctypes.data_as(pointer)
        size = opus.opus_encode_float(encoder, given, FRAME, packet, len(packet))
        total += size
        place = out[i * FRAME : (i + 1) * FRAME].ctypes.data_as(pointer)
        data = None if lost[i] else packet
        opus.opus_decode_float(decoder, data, 0 if lost[i] else size, place, FRAME, 0)
    opus.opus_encoder_destroy(encoder)
    opus.opus_decoder_destroy(decoder)
    return out[delay.value :][: len(audio)], 8 * total / (frames * FRAME / RATE)
