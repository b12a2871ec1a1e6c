"""The ``.codes`` file: model indices packed into bits, with all that a decoder needs.

The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

from simvq_audio.bitstream.codes import Codes
from simvq_audio.bitstream.codes_file import CodesFile
from simvq_audio.bitstream.header import (
    HEADER_BYTES,
    MAGIC,
    MAX_CHANNELS,
    OVERHEAD_BYTES,
    TRAILER_BYTES,
    VERSION,
    Layout,
    read_layout,
)
from simvq_audio.bitstream.packing import MAX_CODEBOOK_SIZE

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_CHANNELS",
    "MAX_CODEBOOK_SIZE",
    "OVERHEAD_BYTES",
    "TRAILER_BYTES",
    "VERSION",
    "Codes",
    "CodesFile",
    "Layout",
    "read_layout",
]
