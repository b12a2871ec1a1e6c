"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` if the block succeeds.

    The temporary name keeps the suffix, since writers pick the format from it. If the block
    raises, the temporary file is removed and ``target`` stays as it was.

    Raises:
        OSError: the folder does not exist or is not writable.
    """
    target = Path(target)
    temporary = _create(target)
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create(target: Path) -> Path:
    """An empty hidden file beside ``target``, with the mode that ``open`` gives new files."""
    while True:
        # Not mkstemp, whose files are private: the umask, which gives the usual mode, can only be
        # read by changing it for all threads of the process.
        path = target.with_name(f".{target.stem[:32]}-{secrets.token_hex(6)}{target.suffix}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path


def write_error(error: Exception, path: Path) -> OSError:
    """What kept a file from being written, as the operating system would put it.

    torch's archive writer hides the reason in its own exception, safetensors in a message.
    """
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        number = cause.errno
    else:
        found = re.search(r"(?:os error |code: )(\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), str(path))
