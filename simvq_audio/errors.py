"""The exceptions that a user's mistake can raise.

The message is one line that says what is wrong and what to do about it. All are also
``ValueError``, so that callers can catch either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SimvqAudioError(ValueError):
    """Base class of everything this package raises for bad input."""


class AudioError(SimvqAudioError):
    """A recording cannot be read, or holds samples that cannot be coded, such as NaN."""


class CodesError(SimvqAudioError):
    """A ``.codes`` or ``.npy`` file is damaged, of an unknown version, or of another model."""


class UnknownPriorError(CodesError):
    """A ``.codes`` file was coded with a prior that this version of the package does not have."""


class ModelError(SimvqAudioError):
    """A model file or checkpoint is damaged, incomplete or cannot be found."""


class ConfigError(SimvqAudioError):
    """A configuration holds an unknown key or a value out of range."""


class MissingExtraError(SimvqAudioError, ImportError):
    """A command needs an optional dependency; the message names the extra that brings it."""


@contextmanager
def needs_extra(extra: str, why: str = "") -> Iterator[None]:
    """Context for imports of packages that an extra of this package installs.

    Args:
        extra: its name.
        why: what the message begins with.

    Raises:
        MissingExtraError: one of them fails.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            problem = f"{error.name} is not installed; it comes"
        else:
            problem = f"a package cannot be imported ({error}); what is needed comes"
        text = f"{why}{problem} with: pip install 'simvq-audio[{extra}]'"
        raise MissingExtraError(text) from error


def one_line(text: str) -> str:
    """A message as one line; spaces stay, since file names may hold several in a row."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def os_error_text(error: OSError) -> str:
    """An operating system error without its number, as shell commands print it."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


# Raised by coding or scoring one recording; it is reported, and the others go on.
# RuntimeError is what torch raises when a device fails.
FILE_ERRORS = (SimvqAudioError, OSError, RuntimeError, MemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its GPU ran out of memory."""
    # By name, since torch may not be imported. On the CPU its error is a bare RuntimeError.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError)
            and any(words in str(error) for words in ("can't allocate memory", "out of memory"))
        )
    )


def failure_text(error: BaseException, path: str) -> str:
    """Why a file failed, in one line, without its path, which is printed beside it."""
    if is_out_of_memory(error):
        return "out of memory, even in the smallest batches"
    if isinstance(error, OSError) and error.strerror:
        shown = "" if error.filename in (None, path) else f"{error.filename}: "
        return f"{shown}{error.strerror}"
    text = one_line(str(error))
    if not isinstance(error, (SimvqAudioError, OSError)):
        text = f"{type(error).__name__}: {text}"
    return text.removeprefix(f"{path}: ")
