"""Codes recordings into files, one after the other, and measures the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from simvq_audio.errors import FILE_ERRORS, AudioError, SimvqAudioError, failure_text
from simvq_audio.evaluation.ledger import Ledger, content_digest
from simvq_audio.evaluation.recordings import Recordings
from simvq_audio.folders import name_clashes

if TYPE_CHECKING:
    from simvq_audio.codec import Codec
    from simvq_audio.codec.folders import JobResult


class CodingFailed(SimvqAudioError):
    """A recording could not be encoded or decoded; the message says why."""


@dataclass(frozen=True)
class CodedFile:
    """A recording, coded and decoded on disk.

    Attributes:
        codes, decoded, reencoded: absolute paths; ``reencoded`` has the codes of the decoded
            file, or is None.
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


class RecordingCoder:
    """Codes recordings into ``codes/``, ``decoded/`` and ``reencoded/`` of a folder.

    The files have the names of the recordings with ``.codes`` or ``.wav`` as the suffix, as
    ``simvq-audio encode`` writes them. Those of an earlier run are used again, with the times
    measured then, if recording, model, versions and the files themselves are still the same.

    Args:
        codec: codes with all threads.
        folder: created if missing.
        ledger: of earlier runs.
        versions: of the packages that code.
        reencode: whether to code the decoded files again.
    """

    def __init__(
        self,
        codec: Codec,
        folder: Path,
        ledger: Ledger,
        versions: dict[str, str],
        *,
        reencode: bool,
    ) -> None:
        # Imports torch, which scoring processes do not need.
        from simvq_audio.codec.folders import FolderCoder

        self._codec = codec
        self._coder = FolderCoder(codec)
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
            the coded recordings, and why others could not be coded, by name.
        """
        coded: dict[str, CodedFile] = {}
        refused = name_clashes(map(PurePath, digests), ".codes")
        failures = {path.as_posix(): reason for path, reason in refused.items()}
        for name in digests:
            if name in failures:
                advance(1)
                continue
            path = recordings.path(name)
            try:
                coded[name] = self._code(name, path, digests[name])
            except FILE_ERRORS as error:
                failures[name] = failure_text(error, path)
            advance(1)
        return coded, failures

    def _code(self, name: str, path: str, digest: str) -> CodedFile:
        codes_path = (self._folder / "codes" / name).with_suffix(".codes")
        decoded_path = (self._folder / "decoded" / name).with_suffix(".wav")
        key = {"kind": "coding", "name": name, "recording": digest, **self._about}
        found = self._ledger.find(key)
        if found is None or not (
            _holds(codes_path, found["codes"]) and _holds(decoded_path, found["decoded"])
        ):
            found = self._code_anew(path, codes_path, decoded_path)
            self._ledger.note(key, found, name=name, kind="coding")
        again_path = again_digest = None
        if self._reencode:
            again_path = (self._folder / "reencoded" / name).with_suffix(".codes")
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
        encoded = self._encode(Path(path), codes_path)
        if not encoded.codes.num_samples:  # type: ignore[union-attr]
            codes_path.unlink()
            raise AudioError(f"{path}: holds no samples")
        decoded = self._one(self._coder.decode([(codes_path, decoded_path)]))
        return {
            "codes": content_digest(codes_path),
            "decoded": content_digest(decoded_path),
            "encode_seconds": encoded.elapsed,
            "decode_seconds": decoded.elapsed,
        }

    def _encode(self, source: Path, target: Path) -> JobResult:
        return self._one(self._coder.encode([(source, target)]))

    def _one(self, results: Iterable[JobResult]) -> JobResult:
        """The result of a single job, whose time is not shared.

        Raises:
            CodingFailed: it failed.
        """
        (result,) = results
        if result.failure is not None:
            raise CodingFailed(result.failure)
        return result

    def _code_again(self, name: str, decoded: Path, digest: str, target: Path) -> str:
        key = {"kind": "reencoding", "name": name, "decoded": digest, **self._about}
        found = self._ledger.find(key)
        if found is None or not _holds(target, found["codes"]):
            self._encode(decoded, target)
            found = {"codes": content_digest(target)}
            self._ledger.note(key, found, name=name, kind="reencoding")
        return found["codes"]

    def _warm_up(self) -> None:
        """Run the model once, since its first pass is slower."""
        if self._warm:
            return
        rate = self._codec.sample_rate
        codes = self._codec.encode(np.zeros(rate, np.float32), rate)
        for _ in self._codec.decode_stream(codes):
            pass
        self._warm = True


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and content_digest(path) == digest
