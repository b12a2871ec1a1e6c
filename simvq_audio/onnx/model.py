"""Graphs and their description, from a model file or a folder of exported graphs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.embedded import embedded_model, embedded_name, is_embedded, old_codes_ids
from simvq_audio.errors import ModelError
from simvq_audio.model.compressed import expand_tensors
from simvq_audio.model.identity import codes_id, fingerprint_of_format_1, model_id
from simvq_audio.onnx.graphs import encoder_graph, vocos_graph
from simvq_audio.onnx.protobuf import OPSET, Graph
from simvq_audio.tensors import read_tensors

FORMAT_VERSION = 1
DESCRIPTION_FILE = "codec.json"
MODEL_FILE = "model.safetensors"
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"

_Tensors = Mapping[str, np.ndarray]
_DECODERS: dict[str, Callable[[Mapping[str, Any], _Tensors, np.ndarray], Graph]] = {
    "vocos": vocos_graph,
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of ``codec.json``: what a program needs in addition to the graphs.

    Attributes:
        name: what the model is called.
        model_id: 12 hexadecimal digits for its weights and configuration.
        codes_id: 12 hexadecimal digits that ``.codes`` files name.
        old_codes_ids: what older files name for the same codes.
        sample_rate: of the waveforms that the graphs take and give, in Hz.
        hop_length: samples per frame.
        codebook_size: codes lie below it.
        encoder_context: frames on either side that a code depends on.
        decoder_context: frames on either side that a frame of the waveform depends on.
        opset: ONNX operator set of the graphs.
        format: of this description.
    """

    name: str
    model_id: str
    codes_id: str
    old_codes_ids: tuple[str, ...]
    sample_rate: int
    hop_length: int
    codebook_size: int
    encoder_context: int
    decoder_context: int
    opset: int = OPSET
    format: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The content of ``codec.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"


def load(source: str | os.PathLike[str] | None) -> tuple[Description, dict[str, bytes]]:
    """The description of a model and its graphs, by their file names.

    Args:
        source: None for the embedded default, an embedded model's name, a model file, or a folder
            that ``save`` wrote or that holds ``model.safetensors``.

    Raises:
        ModelError: there is no such model, it is damaged, or cannot be an ONNX graph.
    """
    if source is None or is_embedded(os.fspath(source)):
        return convert(embedded_model(*([] if source is None else [os.fspath(source)])).path)
    path = Path(source)
    if not path.is_dir():
        if not path.exists():
            raise ModelError(f"there is no model {path}")
        return convert(path)
    if (path / DESCRIPTION_FILE).is_file():
        return _read_folder(path)
    if (path / MODEL_FILE).is_file():
        return convert(path / MODEL_FILE)
    raise ModelError(
        f"the folder {path} holds neither {DESCRIPTION_FILE} nor {MODEL_FILE}; write one with: "
        "simvq-audio export MODEL FOLDER --onnx"
    )


def save(
    folder: str | os.PathLike[str], description: Description, graphs: Mapping[str, bytes]
) -> None:
    """Write graphs and description into a folder, each file whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The description is written last: a folder that has it has the graphs.
    for name, data in [*graphs.items(), (DESCRIPTION_FILE, description.to_json().encode())]:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)


def convert(path: str | os.PathLike[str]) -> tuple[Description, dict[str, bytes]]:
    """The description of a model file and its graphs, by their file names.

    Raises:
        ModelError: the file is missing, damaged, or holds a kind of model without a graph.
    """
    path = Path(path)
    written, tensors = _read_model(path)
    config = written["config"]
    encoder, quantizer, decoder = (config[part] for part in ("encoder", "quantizer", "decoder"))
    if encoder.get("kind", "spectral") != "spectral":
        raise ModelError(f"an encoder of the kind {encoder['kind']} cannot be exported to ONNX")
    kind = decoder.get("kind", "vocos")
    if kind not in _DECODERS:
        raise ModelError(f"a decoder of the kind {kind} cannot be exported to ONNX")
    if decoder.get("attention_prenet"):
        raise ModelError("a decoder with attention cannot be exported to ONNX")
    codebook = _codebook(quantizer.get("kind", "simvq"), tensors)
    meaning, whole, others = _identity(path, written, tensors, len(codebook))
    hop = encoder["hop_length"]
    description = Description(
        name=embedded_name(path) or config["name"],
        model_id=whole,
        codes_id=meaning,
        old_codes_ids=others,
        sample_rate=config["sample_rate"],
        hop_length=hop,
        codebook_size=len(codebook),
        encoder_context=_context(tensors, "encoder.stack") + _window_frames(encoder),
        decoder_context=_context(tensors, "decoder.stack")
        + tensors["decoder.embed.weight"].shape[2] // 2
        + _window_frames(decoder),
    )
    metadata = {name: str(value) for name, value in asdict(description).items()}
    return description, {
        ENCODER: encoder_graph(config, tensors, codebook).to_bytes(metadata),
        DECODER: _DECODERS[kind](config, tensors, codebook).to_bytes(metadata),
    }


def _read_folder(folder: Path) -> tuple[Description, dict[str, bytes]]:
    path = folder / DESCRIPTION_FILE
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT_VERSION:
            raise ModelError(
                f"{path} has format {values['format']}, this version reads {FORMAT_VERSION}; "
                "update simvq-audio"
            )
        values["old_codes_ids"] = tuple(values["old_codes_ids"])
        description = Description(**values)
        return description, {name: (folder / name).read_bytes() for name in (ENCODER, DECODER)}
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except ModelError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged; export the model again") from error


def _read_model(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Our header of a model file, and its tensors as float32."""
    metadata, tensors = read_tensors(path)
    try:
        written = json.loads(metadata["simvq_audio"])
        if written["format"] not in (1, 2, 3):
            raise ModelError(
                f"{path} has model format {written['format']}, this version reads up to 3; "
                "update simvq-audio"
            )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not a simvq-audio model") from error
    try:
        tensors = expand_tensors(written.get("compressed", {}), tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy or download it again") from error
    return written, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _identity(
    path: Path, written: dict[str, Any], tensors: _Tensors, codebook_size: int
) -> tuple[str, str, tuple[str, ...]]:
    """codes_id, model_id and further names of the codes, once the tensors are found sound."""
    config = written["config"]
    quantizer = SimpleNamespace(
        kind=config["quantizer"].get("kind", "simvq"), codebook_sizes=(codebook_size,)
    )
    layout: Any = SimpleNamespace(
        sample_rate=config["sample_rate"],
        hop_length=config["encoder"]["hop_length"],
        quantizer=quantizer,
    )
    meaning = codes_id(layout, tensors)
    old = written["format"] == 1
    whole = (fingerprint_of_format_1 if old else model_id)(config, tensors)
    if whole != written["fingerprint" if old else "model_id"]:
        raise ModelError(
            f"{path} is damaged (its weights are not those that it names); "
            "copy or download it again"
        )
    others = dict.fromkeys([*([whole] if old else []), *old_codes_ids(meaning)])
    return meaning, whole, tuple(others)


def _codebook(kind: str, tensors: _Tensors) -> np.ndarray:
    """(codes, latent_dim) float32."""
    if kind == "simvq":
        codebook = tensors["quantizer.basis"] @ tensors["quantizer.proj.weight"].T
        bias = tensors.get("quantizer.proj.bias")
        return codebook if bias is None else codebook + bias
    if kind in ("vq", "ema"):
        return tensors["quantizer.entries"]
    raise ModelError(f"a quantiser of the kind {kind} cannot be exported to ONNX")


def _context(tensors: _Tensors, stack: str) -> int:
    """Frames on either side that a ConvNeXt stack looks at."""
    kernels = [
        tensor.shape[2]
        for name, tensor in tensors.items()
        if name.startswith(stack) and name.endswith("dwconv.weight")
    ]
    return sum(kernel // 2 for kernel in kernels)


def _window_frames(part: Mapping[str, Any]) -> int:
    """Frames on either side that a window of ``n_fft`` reaches into."""
    return -(-(part["n_fft"] - part["hop_length"]) // (2 * part["hop_length"]))
