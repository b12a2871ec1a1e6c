"""Which parts of a run are done: one note per part, written after its shard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.corpora.corpus import CorpusError
from simvq_audio.corpora.writers import WORK_FOLDER


@dataclass(frozen=True)
class PartDone:
    """The result of a part.

    Attributes:
        rows: recordings coded.
        seconds: their length, of one channel each.
        frames: codes of one channel, over all of them.
        failures: id and reason of each recording that gave nothing.
    """

    part: int
    rows: int
    seconds: float
    frames: int
    failures: list[tuple[str, str]] = field(default_factory=list)


class Journal:
    """The notes of an output folder.

    A killed process can leave a shard without its note: the part is then done again and its shard
    replaced by an equal one. A note without its shard cannot be.

    Args:
        folder: made if it is not there.
        plan: what a run is; a folder that was begun with another one is refused.

    Raises:
        CorpusError: the folder holds something else, or was begun with another plan.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        if folder.exists() and not folder.is_dir():
            raise CorpusError(f"{folder}: is a file; OUT must be a folder")
        self._folder = folder / WORK_FOLDER
        if folder.is_dir() and not self._folder.is_dir() and any(folder.iterdir()):
            raise CorpusError(
                f"{folder}: holds other files; give a folder that is new or empty as OUT"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check(folder, plan)

    def _check(self, folder: Path, plan: dict[str, Any]) -> None:
        path = self._folder / "plan.json"
        if not path.exists():
            # Several processes may start together; all of them write the same content.
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(plan, indent=2))
        known = json.loads(path.read_text())
        for key, value in json.loads(json.dumps(plan)).items():
            if known.get(key) != value:
                what = f"{key} was {known.get(key)!r} and is now {value!r}"
                if key == "fingerprint":
                    what = f"IN has changed since ({known.get('count')} recordings then)"
                raise CorpusError(
                    f"{folder}: was begun otherwise: {what}; give the same again, or another OUT"
                )

    @contextmanager
    def locked(self, rank: int, world_size: int) -> Iterator[None]:
        """Keep a second process from doing the same work.

        Raises:
            CorpusError: there is one.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        path = self._folder / f"rank-{rank}-of-{world_size}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CorpusError(
                    f"{self._folder.parent}: another process is at work on it as rank {rank} of "
                    f"{world_size}; wait for it or end it"
                ) from error
            except OSError:
                # Some network file systems have no locks.
                pass
            yield

    def done(self, part: int) -> PartDone | None:
        """The note of a part, if it is done."""
        try:
            values = json.loads(self._path(part).read_text())
        except FileNotFoundError:
            return None
        failures = [(each[0], each[1]) for each in values.pop("failures")]
        return PartDone(**values, failures=failures)

    def clear(self, part: int) -> None:
        """Remove leftovers of a part from a killed process."""
        for left in self._folder.glob(f"part-{part:06d}-*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self._folder.glob(f".part-{part:06d}-*"):
            left.unlink(missing_ok=True)

    def note(self, done: PartDone) -> None:
        """Record that a part's shard is written."""
        with atomic_path(self._path(done.part)) as temporary:
            with temporary.open("w") as file:
                json.dump(asdict(done), file)
                file.flush()
                os.fsync(file.fileno())

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:06d}.json"
