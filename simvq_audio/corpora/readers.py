"""The kinds of corpora: folders, ``wav.scp``, JSONL manifests, WebDataset tars."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.corpora.corpus import Corpus, CorpusError, Listing, chunked
from simvq_audio.corpora.records import OWN_COLUMNS, Recording
from simvq_audio.errors import needs_extra, one_line, os_error_text

# Names of the audio path in manifests; the first is NeMo's.
_PATH_KEYS = ("audio_filepath", "audio", "path", "wav", "file", "filename")
_ID_KEYS = ("id", "utt_id", "key")
_TAR_TEXTS = ("json", "txt")


def open_corpus(path: str, shard_size: int = 1000, root: str | None = None) -> Corpus:
    """The corpus at ``path``.

    Args:
        path: a folder of recordings, a ``.scp`` file, a ``.jsonl`` or ``.json`` file with an object
            a line, a ``.tar`` file or several by ``*`` or ``{000..099}``, or a folder of tars.
        shard_size: recordings in a part; of tars, each is a part.
        root: what relative paths of a list begin with; by default, in ``wav.scp`` the working
            folder, as in Kaldi, and in a manifest its own.

    Raises:
        CorpusError: there is no such thing, it holds nothing, or a line cannot be used.
        MissingExtraError: tars need webdataset.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".tar", ".tgz") or path.endswith(".tar.gz"):
            return _Tars(_expand(path))
        place = Path(path)
        if place.is_dir():
            tars = sorted(str(found) for found in place.glob("*.tar"))
            return _Tars(tars) if tars else _Folder(place, shard_size)
        if not place.exists():
            raise CorpusError(f"{path}: no such file or folder")
        if suffix == ".scp":
            return _Scp(place, shard_size, Path(root or "."))
        if suffix in (".jsonl", ".json", ".ndjson"):
            return _Manifest(place, shard_size, Path(root) if root else place.parent)
    except OSError as error:
        raise CorpusError(os_error_text(error)) from error
    raise CorpusError(
        f"{path}: IN must be a folder, wav.scp, a manifest (.jsonl) or .tar; "
        "a single recording is coded by: simvq-audio encode"
    )


class _Folder(Corpus):
    """Recordings of a folder and its subfolders, sorted; hidden ones are skipped.

    The id is the path relative to the folder, with "/" as separator.
    """

    kind = "folder"

    def __init__(self, folder: Path, shard_size: int) -> None:
        self._folder = folder
        self._size = shard_size
        self.columns: dict[str, str] = {}
        listing = Listing()
        for name in self._names(""):
            listing.add(name, name)
        if not listing.count:
            raise CorpusError(
                f"{folder}: holds no file with a suffix of {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        self.count = listing.count
        self.num_parts = -(-self.count // shard_size)
        self.fingerprint = listing.finish(str(folder), lambda: self._names(""))

    def _names(self, below: str) -> Iterator[str]:
        # One folder's names in memory at a time.
        with os.scandir(self._folder / below) as entries:
            found = sorted(
                (entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")
            )
        for name, is_folder in found:
            path = f"{below}/{name}" if below else name
            if is_folder:
                yield from self._names(path)
            elif os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                yield path

    def parts(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Iterator[Recording]]]:
        for number, names in chunked(self._names(""), self._size):
            if wanted(number):
                yield number, (Recording(name, str(self._folder / name)) for name in names)


class _Lines(Corpus):
    """A list with one recording per line."""

    def __init__(self, path: Path, shard_size: int, root: Path) -> None:
        self._path = path
        self._size = shard_size
        self._root = root
        self.columns = {}
        listing = Listing()
        for line_number, line in self._lines():
            recording = self._checked(line_number, line)
            listing.add(recording.id, line)
        if not listing.count:
            raise CorpusError(f"{path}: is empty")
        self.count = listing.count
        self.num_parts = -(-self.count // shard_size)
        self.fingerprint = listing.finish(
            str(path), lambda: (self._recording(line).id for _, line in self._lines())
        )

    def _lines(self) -> Iterator[tuple[int, str]]:
        with self._path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()

    def _checked(self, number: int, line: str) -> Recording:
        try:
            return self._recording(line)
        except ValueError as error:
            raise CorpusError(f"{self._path}, line {number}: {one_line(str(error))}") from error

    def _recording(self, line: str) -> Recording:
        raise NotImplementedError

    def parts(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Iterator[Recording]]]:
        for number, lines in chunked(self._lines(), self._size):
            if wanted(number):
                yield number, (self._recording(line) for _, line in lines)


class _Scp(_Lines):
    """Kaldi's ``wav.scp``: an id, a space, a path. Commands (``... |``) are not run."""

    kind = "wav.scp"

    def _recording(self, line: str) -> Recording:
        identity, _, path = line.partition(" ") if " " in line else line.partition("\t")
        path = path.strip()
        if not path:
            raise ValueError("there must be an id, a space and a path")
        if path.endswith("|"):
            raise ValueError(
                "commands are not run; write the recordings to files first, "
                "as wav-copy or lhotse do"
            )
        return Recording(identity, str(self._root / path))


class _Manifest(_Lines):
    """One object per line: path, optional id, ``offset`` and ``duration`` of a segment.

    All keys become columns of the output.
    """

    kind = "manifest"

    def __init__(self, path: Path, shard_size: int, root: Path) -> None:
        self._types: dict[str, str | None] = {}
        super().__init__(path, shard_size, root)
        self.columns = {
            _column_name(key): kind or "string" for key, kind in sorted(self._types.items())
        }

    def _checked(self, number: int, line: str) -> Recording:
        recording = super()._checked(number, line)
        for key, value in json.loads(line).items():
            if key != _ID_KEYS[0]:
                self._types[key] = _joint_type(self._types.get(key), value)
        return recording

    def _recording(self, line: str) -> Recording:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise ValueError("there must be an object in braces")
        path = next((entry[key] for key in _PATH_KEYS if isinstance(entry.get(key), str)), None)
        if path is None:
            raise ValueError(f"no path of the audio; one of {', '.join(_PATH_KEYS)} must be there")
        identity = next((str(entry[key]) for key in _ID_KEYS if entry.get(key) is not None), None)
        offset = entry.get("offset")
        segment: tuple[float, float | None] = (0.0, None)
        if offset is not None:
            duration = entry.get("duration")
            segment = (float(offset), None if duration is None else float(duration))
            if segment[0] < 0 or (segment[1] is not None and segment[1] < 0):
                raise ValueError("offset and duration must not be negative")
        if identity is None:
            identity = path if offset is None else f"{path}@{offset}"
        columns = {
            _column_name(key): _as_type(value, self._types.get(key))
            for key, value in entry.items()
            if key != _ID_KEYS[0]
        }
        return Recording(identity, str(self._root / path), columns, *segment)


class _Tars(Corpus):
    """WebDataset tars; each is a part.

    The audio of a sample is its first field with the suffix of an audio format; its ``json`` and
    ``txt`` go through as columns of text.
    """

    kind = "webdataset"

    def __init__(self, paths: list[str]) -> None:
        with needs_extra("corpora"):
            import webdataset  # noqa: F401
        self._paths = paths
        self.columns = dict.fromkeys(_TAR_TEXTS, "string")
        self.count = None
        self.num_parts = len(paths)
        listing = Listing()
        for path in paths:
            listing.add(path, f"{os.path.basename(path)} {os.path.getsize(path)}")
        self.fingerprint = listing.finish("the list of tars", lambda: iter(paths))

    def parts(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Iterator[Recording]]]:
        for number, path in enumerate(self._paths):
            if wanted(number):
                yield number, self._samples(path)

    def _samples(self, path: str) -> Iterator[Recording]:
        from webdataset.tariterators import group_by_keys, tar_file_expander

        count = 0
        try:
            with open(path, "rb") as stream:
                files = tar_file_expander([{"url": path, "stream": stream}])
                for sample in group_by_keys(files):
                    recording = _of_sample(sample)
                    if recording is not None:
                        yield recording
                        count += 1
        # tarfile, gzip and webdataset raise many kinds of exceptions on damaged archives.
        except Exception as error:
            raise CorpusError(
                f"{path}: is damaged or cannot be read after {count} recordings "
                f"({one_line(str(error))})"
            ) from error


def _of_sample(sample: dict[str, Any]) -> Recording | None:
    audio = next((key for key in sample if f".{key.split('.')[-1]}" in AUDIO_SUFFIXES), None)
    if audio is None:
        return None
    texts = {
        key: sample[key].decode("utf-8", "replace").strip() for key in _TAR_TEXTS if key in sample
    }
    return Recording(sample["__key__"], sample[audio], texts)


def _expand(pattern: str) -> list[str]:
    with needs_extra("corpora"):
        from webdataset.shardlists import expand_urls
    paths: list[str] = []
    for each in expand_urls(pattern):
        paths += sorted(glob.glob(each)) if glob.has_magic(each) else [each]
    for path in paths:
        if not os.path.isfile(path):
            raise CorpusError(f"{path}: no such file")
    if not paths:
        raise CorpusError(f"{pattern}: no such file")
    return paths


def _column_name(key: str) -> str:
    return f"manifest_{key}" if key in OWN_COLUMNS else key


def _joint_type(known: str | None, value: Any) -> str | None:
    """The type of a column after adding ``value``."""
    if value is None:
        return known
    if isinstance(value, bool):
        own = "bool"
    elif isinstance(value, int):
        own = "int64" if -(2**63) <= value < 2**63 else "string"
    elif isinstance(value, float):
        own = "double"
    else:
        own = "string"
    if known in (None, own):
        return own
    return "double" if {known, own} == {"int64", "double"} else "string"


def _as_type(value: Any, kind: str | None) -> Any:
    """A manifest's value as stored in its column; lists and other types become JSON."""
    if value is None or kind is None:
        return None
    if kind == "double" and isinstance(value, int):
        return float(value)
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value
