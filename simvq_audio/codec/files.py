"""Codes in files: ``.codes``, or ``.npy`` for bare indices."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.bitstream import Codes
from simvq_audio.errors import CodesError

if TYPE_CHECKING:
    from simvq_audio.codec.codec import Codec

CODES_SUFFIX = ".codes"
INDICES_SUFFIX = ".npy"


def write_codes(codes: Codes, target: Path, coding: str = "entropy") -> int:
    """Write a ``.codes`` file, or bare indices to ``.npy``, whole or not at all.

    Args:
        coding: of the ``.codes`` file, see ``Codes.to_bytes``.

    Returns:
        the size of the file in bytes.
    """
    if target.suffix.lower() == INDICES_SUFFIX:
        indices = codes.indices[0] if codes.channels == 1 else codes.indices
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, indices, allow_pickle=False)
    else:
        codes.save(target, coding)
    return target.stat().st_size


def read_indices(path: Path) -> np.ndarray:
    """Read bare indices from ``.npy``.

    Returns:
        integers, shape (frames,) or (channels, frames), and of a model with several codes per frame
        (codebooks, frames) or (channels, codebooks, frames).

    Raises:
        CodesError: the file is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            # numpy would read anything else as a pickle or a zip archive.
            if file.read(6) != b"\x93NUMPY":
                raise CodesError("it has another signature")
        # Memory-mapped, which compares the size in the header with the size of the file, where
        # reading would allocate the former.
        with warnings.catch_warnings():
            # Warnings about absurd shapes in damaged files, which are refused below.
            warnings.simplefilter("ignore")
            indices = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy parses the header as Python, so damage can raise almost anything.
    except Exception as error:
        raise CodesError(f"{path}: cannot be read as .npy ({error})") from error
    if indices.dtype.kind not in "iu" or indices.ndim not in (1, 2, 3):
        raise CodesError(
            f"{path}: holds {indices.dtype} of the shape {indices.shape}; indices are integers "
            f"of the shape (frames,) or (channels, frames)"
        )
    return np.array(indices)


def load_codes(path: Path) -> Codes | np.ndarray:
    """Read a ``.codes`` or ``.npy`` file, without a model.

    Returns:
        the codes, or bare indices.

    Raises:
        CodesError: the file is missing, damaged or of another kind.
    """
    return read_indices(path) if path.suffix.lower() == INDICES_SUFFIX else Codes.load(path)


def checked_codes(loaded: Codes | np.ndarray, codec: Codec) -> Codes:
    """Codes that ``codec`` can decode.

    Raises:
        CodesError: they belong to another model, or are not indices of this one.
    """
    if not isinstance(loaded, Codes):
        return codec.codes_from_indices(loaded)
    codec.check(loaded)
    return loaded


def read_codes(path: Path, codec: Codec) -> Codes:
    """Read a file of codes that ``codec`` can decode.

    Raises:
        CodesError: as for ``load_codes`` and ``checked_codes``.
    """
    return checked_codes(load_codes(path), codec)
