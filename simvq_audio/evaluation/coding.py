"""Coding every recording into real files, one after the other, so that times mean something."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simvq_audio.bitstream import Codes
from simvq_audio.errors import AudioError, SimvqAudioError, one_line
from simvq_audio.evaluation.ledger import Ledger, content_digest
from simvq_audio.evaluation.pairing import Recordings

if TYPE_CHECKING:
    from collections.abc import Iterator

# What coding one recording can end with, to be noted while the others go on. RuntimeError is
# what torch raises where a device has no memory left.
CODING_ERRORS = (SimvqAudioError, OSError, RuntimeError, MemoryError)


class FileCodec(Protocol):
    """What an evaluation needs of a codec; ``simvq_audio.Codec`` is one."""

    name: str
    model_id: str
    sample_rate: int
    codebook_size: int
    device: Any

    def encode(self, waveform: np.ndarray, sample_rate: int) -> Codes: ...
    def encode_file(self, path: str | Path) -> Codes: ...
    def decode_file(self, codes: Codes, path: str | Path) -> None: ...
    def decode_stream(self, codes: Codes) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class CodedFile:
    """A recording, coded and decoded on disk.

    Attributes:
        codes, decoded, reencoded: absolute paths; ``reencoded`` holds the codes of the decoded
            file and is None if they were not asked for.
        codes_digest, decoded_digest, reencoded_digest: of their contents.
        encode_seconds, decode_seconds: wall time, reading and writing of audio included.
    """

    codes: str
    decoded: str
    reencoded: str | None
    codes_digest: str
    decoded_digest: str
    reencoded_digest: str | None
    encode_seconds: float
    decode_seconds: float


class FolderCoder:
    """Codes recordings into ``codes/``, ``decoded/`` and ``reencoded/`` of a folder.

    The files are named as the recording with ``.codes`` or ``.wav`` added, so that ``a.wav`` and
    ``a.flac`` do not meet. What lies there from an earlier run is used again if recording,
    model, versions and the files themselves are still the same; the times are those of then.

    Args:
        codec: codes with all the threads that it likes.
        folder: made if it is not there.
        ledger: of earlier runs.
        versions: of the packages that code.
        reencode: whether to code the decoded files again.
    """

    def __init__(
        self,
        codec: FileCodec,
        folder: Path,
        ledger: Ledger,
        versions: dict[str, str],
        *,
        reencode: bool,
    ) -> None:
        self._codec = codec
        self._folder = folder.resolve()
        self._ledger = ledger
        self._about = {
            "model": codec.model_id,
            "device": str(codec.device),
            "versions": versions,
        }
        self._reencode = reencode
        self._warm = False

    def code_all(
        self, recordings: Recordings, digests: dict[str, str], advance: Callable[[float], None]
    ) -> tuple[dict[str, CodedFile], dict[str, str]]:
        """Code the recordings that ``digests`` names.

        Returns:
            the coded ones, and why the others could not be coded, by name.
        """
        coded: dict[str, CodedFile] = {}
        failures: dict[str, str] = {}
        for name in digests:
            path = recordings.path(name)
            try:
                coded[name] = self._code(name, path, digests[name])
            except CODING_ERRORS as error:
                failures[name] = failure_text(error, path)
            advance(1)
        return coded, failures

    def _code(self, name: str, path: str, digest: str) -> CodedFile:
        codes_path = self._folder / "codes" / f"{name}.codes"
        decoded_path = self._folder / "decoded" / f"{name}.wav"
        key = {"kind": "coding", "name": name, "recording": digest, **self._about}
        found = self._ledger.find(key)
        if found is None or not (
            _holds(codes_path, found["codes"]) and _holds(decoded_path, found["decoded"])
        ):
            found = self._code_anew(path, codes_path, decoded_path)
            self._ledger.note(key, found, name=name, kind="coding")
        again_path = again_digest = None
        if self._reencode:
            again_path = self._folder / "reencoded" / f"{name}.codes"
            again_digest = self._code_again(name, decoded_path, found["decoded"], again_path)
        return CodedFile(
            str(codes_path),
            str(decoded_path),
            None if again_path is None else str(again_path),
            found["codes"],
            found["decoded"],
            again_digest,
            found["encode_seconds"],
            found["decode_seconds"],
        )

    def _code_anew(self, path: str, codes_path: Path, decoded_path: Path) -> dict[str, Any]:
        self._warm_up()
        start = time.perf_counter()
        codes = self._codec.encode_file(path)
        encode_seconds = time.perf_counter() - start
        if not codes.num_samples:
            raise AudioError(f"{path}: holds no samples")
        for target in (codes_path, decoded_path):
            target.parent.mkdir(parents=True, exist_ok=True)
        codes.save(codes_path)
        stored = Codes.load(codes_path)
        start = time.perf_counter()
        self._codec.decode_file(stored, decoded_path)
        return {
            "codes": content_digest(codes_path),
            "decoded": content_digest(decoded_path),
            "encode_seconds": encode_seconds,
            "decode_seconds": time.perf_counter() - start,
        }

    def _code_again(self, name: str, decoded: Path, digest: str, target: Path) -> str:
        key = {"kind": "reencoding", "name": name, "decoded": digest, **self._about}
        found = self._ledger.find(key)
        if found is None or not _holds(target, found["codes"]):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._codec.encode_file(decoded).save(target)
            found = {"codes": content_digest(target)}
            self._ledger.note(key, found, name=name, kind="reencoding")
        return found["codes"]

    def _warm_up(self) -> None:
        """The first pass of a model prepares what later ones have; no recording shall pay it."""
        if self._warm:
            return
        rate = self._codec.sample_rate
        codes = self._codec.encode(np.zeros(rate, np.float32), rate)
        for _ in self._codec.decode_stream(codes):
            pass
        self._warm = True


def failure_text(error: BaseException, path: str) -> str:
    """Why a recording gave nothing, in one line, without its path, which stands beside it."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = one_line(str(error))
    if not isinstance(error, (SimvqAudioError, OSError)):
        text = f"{type(error).__name__}: {text}"
    return text.removeprefix(f"{path}: ")


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and content_digest(path) == digest
