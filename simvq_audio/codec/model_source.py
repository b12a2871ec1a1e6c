"""Where a model comes from: the package, a file, or the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from simvq_audio.embedded import embedded_model, is_embedded
from simvq_audio.errors import ModelError, needs_extra

MODEL_FILE = "model.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def locate_model(source: str | os.PathLike[str] | None) -> Path:
    """The file of a model.

    Args:
        source: None for the embedded default; the name of an embedded model; a path of a model
            file or of a folder that holds ``model.safetensors``; or ``owner/name`` of a Hugging
            Face repository that holds ``model.safetensors``, if there is no folder ``owner`` here.

    Raises:
        ModelError: there is no such model.
        MissingExtraError: it is a repository, and huggingface_hub is not installed.
    """
    if source is None:
        return embedded_model().path
    text, path = os.fspath(source), Path(source)
    # Before files, since a folder may happen to have the name of a model.
    if is_embedded(text):
        return embedded_model(text).path
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            raise ModelError(f"the folder {text} holds no {MODEL_FILE}")
        return path / MODEL_FILE
    if path.exists():
        return path
    if os.sep not in text and path.suffix == "":
        return embedded_model(text).path
    # A mistyped path should not be looked up on the network.
    if _REPOSITORY.fullmatch(text) and path.suffix != ".safetensors" and not path.parent.exists():
        return _download(text)
    raise ModelError(f"there is no model file {text}")


def _download(repository: str) -> Path:
    with needs_extra("hub", f"there is no file {repository}; for the Hugging Face hub: "):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RemoteEntryNotFoundError,
            RepositoryNotFoundError,
        )
    try:
        return Path(hf_hub_download(repository, MODEL_FILE))
    except RepositoryNotFoundError as error:  # also for private ones
        raise ModelError(
            f"there is no file and no Hugging Face repository {repository} that you have access "
            "to; if it is private, log in with: hf auth login"
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelError(
            f"the Hugging Face repository {repository} holds no {MODEL_FILE}"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"cannot get {MODEL_FILE} of the repository {repository}: {reason}"
        ) from error
