"""Results of an evaluation on disk, so that it can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class Ledger:
    """Results in a file of JSON lines, appended one by one; a context manager.

    A line has a key, which says what was computed from what, and the result. Interruption loses at
    most the line being written. Of equal keys, the last one is valid.

    Args:
        path: the file, created if missing; None: in memory.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._found: dict[str, Any] = {}
        self._file = None
        if path is None:
            return
        torn = False
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                torn = not line.endswith(b"\n")
                try:
                    row = json.loads(line)
                    self._found[row["key"]] = row["finding"]
                # A line truncated when the program was killed; its result is
                # computed again.
                except (ValueError, KeyError, TypeError):
                    continue
        self._file = path.open("ab")
        if torn:
            self._file.write(b"\n")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def find(self, key: dict[str, Any]) -> Any:
        """The result of this key, or None."""
        return self._found.get(_digest(key))

    def note(self, key: dict[str, Any], finding: Any, **about: Any) -> None:
        """Add a result.

        Args:
            key: what was computed from what.
            finding: JSON data, not None.
            about: for readers of the file.
        """
        digest = _digest(key)
        self._found[digest] = finding
        if self._file is not None:
            row = {"key": digest, **about, "finding": finding}
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()


def content_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
