"""The models that come inside the package, each with a model card beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from simvq_audio.errors import ModelError
from simvq_audio.model.storage import ModelHeader, read_header

DEFAULT_MODEL = "compact"


@dataclass(frozen=True)
class EmbeddedModel:
    """One embedded model; its header is read when first asked for, without torch."""

    name: str
    path: Path

    @cached_property
    def header(self) -> ModelHeader:
        """What the model file says about itself."""
        return read_header(self.path)

    @property
    def fingerprint(self) -> str:
        """What ``.codes`` files of this model name, 12 hexadecimal digits."""
        return self.header.fingerprint

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.header.config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.header.config.frame_rate

    @property
    def codebook_size(self) -> int:
        """Entries."""
        return self.header.config.quantizer.codebook_size

    @property
    def bitrate(self) -> float:
        """Payload bits a second of one channel."""
        return self.header.config.bitrate

    @property
    def parameters(self) -> int:
        """Numbers in the file, the frozen codebook basis included."""
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
    if name not in models:
        known = ", ".join(models) or "none"
        raise ModelError(f"no embedded model is called {name!r}; embedded: {known}")
    return models[name]
