"""Resumable downloads, and archives that are unpacked whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from simvq_audio.errors import SimvqAudioError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


class DownloadError(SimvqAudioError):
    """A download was incomplete, or its content is not as expected."""


def download(
    url: str, target: Path, sha256: str, progress: Callable[[int, int | None], None]
) -> None:
    """Download a file; ``target`` appears when it is complete and its checksum is right.

    Incomplete downloads are kept in ``target`` + ".part" and resumed by the next call if the server
    supports it.

    Args:
        url: http, https or file.
        target: path of the file; if it exists, nothing is done.
        sha256: checksum, hexadecimal.
        progress: called with bytes so far and in total; the total is None where unknown.

    Raises:
        DownloadError: the connection fails or breaks off, or the checksum is wrong.
        OSError: the disk is full or not writable.
    """
    if target.exists():
        return
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            # A server that cannot resume answers 200 and sends the whole file.
            if response.status != http.client.PARTIAL_CONTENT:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with open(part, "ab" if have else "wb") as file:
                while chunk := _read(response, url):
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, total)
            if total is not None and have < total:
                raise DownloadError(_interrupted(url, f"{have} of {total} bytes"))
    except urllib.error.HTTPError as error:
        # "Range not satisfiable": the part is complete, but was not checked yet.
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise DownloadError(f"cannot download {url}: {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        reason = error.reason.strerror if isinstance(error.reason, OSError) else error.reason
        raise DownloadError(f"cannot download {url}: {reason or error.reason}") from error
    if _sha256(part) != sha256:
        part.unlink()
        raise DownloadError(
            f"{url} has another checksum than expected; the download was removed, try again"
        )
    os.replace(part, target)


def unpack_folder(archive: Path, inside: str, target: Path) -> None:
    """Unpack one folder of a tar archive (compressed or not) to ``target``.

    Args:
        inside: the folder's path in the archive.
        target: appears when the folder is complete.

    Raises:
        DownloadError: the archive is damaged, or has no such folder.
        OSError: the disk is full or not writable.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True
    ) as temporary:
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.name.removeprefix("./").startswith(inside + "/"):
                        tar.extract(member, temporary, filter="data")
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DownloadError(f"{archive} is damaged ({error}); remove it, try again") from error
        if not Path(temporary, inside).is_dir():
            raise DownloadError(f"{archive} has no folder {inside}")
        os.replace(Path(temporary, inside), target)


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(_interrupted(url, str(error) or type(error).__name__)) from error


def _interrupted(url: str, detail: str) -> str:
    return f"the download of {url} broke off ({detail}); run the command again to go on with it"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
