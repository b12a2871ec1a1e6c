"""The models in the package, and their model card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from simvq_audio.errors import ModelError

if TYPE_CHECKING:
    from simvq_audio.model.storage import ModelHeader

DEFAULT_MODEL = "compact-1"
ALIASES = {"compact": DEFAULT_MODEL}

# Before there was a codes_id, files named the model that made them. These three models had the
# encoder and the codebook of compact-1.
_OLD_CODES_IDS = {"c153ae81d324": ("c3de87daa4a2", "ef3e61a1305e", "2125efdb6553")}


@dataclass(frozen=True)
class EmbeddedModel:
    """An embedded model; its header is read on first use, without torch."""

    name: str
    path: Path

    @cached_property
    def header(self) -> ModelHeader:
        """The header of the model file."""
        from simvq_audio.model.storage import read_header

        return read_header(self.path)

    @property
    def codes_id(self) -> str:
        """The name of its codes in ``.codes`` files, 12 hexadecimal digits."""
        return self.header.codes_id

    @property
    def model_id(self) -> str:
        """12 hexadecimal digits for its weights and configuration."""
        return self.header.model_id

    def decodes(self, codes_id: str) -> bool:
        """Whether it decodes files that name ``codes_id``."""
        return codes_id in (self.codes_id, *old_codes_ids(self.codes_id))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.header.config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.header.config.frame_rate

    @property
    def codebook_size(self) -> int:
        """Entries."""
        return self.header.config.quantizer.codebook_sizes[0]

    @property
    def bitrate(self) -> float:
        """Payload bits per second of one channel."""
        return self.header.config.bitrate

    @property
    def parameters(self) -> int:
        """Numbers in the file, with the frozen codebook basis."""
        return self.header.parameters

    @property
    def file_bytes(self) -> int:
        """Size of the model file."""
        return self.header.file_bytes

    @property
    def description(self) -> str:
        """One line."""
        return self.header.metadata.get("description", "")

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.header.metadata.get("licence", "")


def embedded_models() -> list[EmbeddedModel]:
    """All models inside the package, the default one first."""
    files = sorted(Path(__file__).parent.glob("*.safetensors"))
    models = [EmbeddedModel(file.stem, file) for file in files]
    return sorted(models, key=lambda model: model.name != DEFAULT_MODEL)


def embedded_model(name: str = DEFAULT_MODEL) -> EmbeddedModel:
    """The embedded model of this name.

    Raises:
        ModelError: there is none.
    """
    models = {model.name: model for model in embedded_models()}
    name = ALIASES.get(name, name)
    if name not in models:
        known = ", ".join(models) or "none"
        raise ModelError(f"no embedded model is called {name!r}; embedded: {known}")
    return models[name]


def is_embedded(name: str) -> bool:
    """Whether an embedded model has this name."""
    return name in ALIASES or any(model.name == name for model in embedded_models())


def embedded_name(path: Path) -> str | None:
    """The name of the embedded model in this file; None of a file from elsewhere."""
    return path.stem if path.parent == Path(__file__).parent else None


def old_codes_ids(codes_id: str) -> tuple[str, ...]:
    """Names of the codes ``codes_id`` in older ``.codes`` files."""
    return _OLD_CODES_IDS.get(codes_id, ())
