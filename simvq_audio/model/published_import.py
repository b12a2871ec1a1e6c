"""Published SimVQ checkpoints (Lightning files of youngsheen/SimVQ) to model files.

A checkpoint holds, under ``state_dict``, the trained tensors; the moving average of the same ones
under ``model_ema.``, without the dots in their names; the frozen codebook basis and the Hann
window, which have no average; and what decoding does not need: losses and discriminators
(``loss.``) and a SEANet decoder that the published model never calls (``decoder.``).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig, SeanetEncoderConfig, VocosDecoderConfig
from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.storage import save_model

_BASIS = "quantize.embedding.weight"
_WINDOW = "head.istft.window"
_AVERAGE = "model_ema."
_AVERAGE_SETTINGS = ("model_ema.decay", "model_ema.num_updates")
_UNUSED = ("loss.", "decoder.", "model_ema.loss", "model_ema.decoder")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Our prefix -> published prefix; those that depend on the strides are added below.
_PREFIXES = (
    ("encoder.first.", "encoder.model.0.conv."),
    ("quantizer.basis", _BASIS),
    ("quantizer.proj.", "quantize.embedding_proj."),
    ("decoder.embed.", "backbone.embed."),
    ("decoder.prenet.before.0.", "backbone.pos_net.0."),
    ("decoder.prenet.before.1.", "backbone.pos_net.1."),
    ("decoder.prenet.attention.", "backbone.pos_net.2."),
    ("decoder.prenet.after.0.", "backbone.pos_net.3."),
    ("decoder.prenet.after.1.", "backbone.pos_net.4."),
    ("decoder.prenet.norm.", "backbone.pos_net.5."),
    ("decoder.stack.", "backbone."),
    ("decoder.head.", "head."),
)
_STAGE_PARTS = {
    "residual.narrow": (1, "block.1.conv"),
    "residual.widen": (1, "block.3.conv"),
    "residual.shortcut": (1, "shortcut.conv"),
    "down": (3, "conv"),
}
_STAGE = re.compile(rf"encoder\.stages\.(\d+)\.({'|'.join(map(re.escape, _STAGE_PARTS))})\.")
_WEIGHT_NORM = (
    ("parametrizations.weight.original0", "weight_g"),
    ("parametrizations.weight.original1", "weight_v"),
)


@dataclass(frozen=True)
class ImportSummary:
    """What was imported.

    Attributes:
        codebook_size: entries of the codebook.
        parameters: trained numbers in use; the frozen basis is not among them.
        source: "ema" or "raw".
    """

    codebook_size: int
    parameters: int
    source: str


def published(codebook_size: int = 4096) -> ModelConfig:
    """The SimVQ audio model as published: SEANet, SimVQ-512, attention backbone, iSTFT head."""
    return ModelConfig(
        name="published",
        encoder=SeanetEncoderConfig(),
        quantizer=SimVQConfig(codebook_size=codebook_size, latent_dim=512),
        decoder=VocosDecoderConfig(
            dim=768, hidden_dim=2304, blocks=12, kernel_size=7, attention_prenet=True
        ),
    )


def import_published(checkpoint: Path, out: Path, *, raw: bool = False) -> ImportSummary:
    """Write the model file ``out`` from a published checkpoint, at any codebook size.

    The checkpoint is memory-mapped, so that optimiser states and discriminators take no memory.
    Nothing in it is executed.

    Args:
        raw: use the weights of the last step, not their moving average.

    Raises:
        ModelError: ``checkpoint`` cannot be read, is not such a file, needs code to be executed, or
            holds tensors that are missing, unexpected, of another shape, not floating point or
            not finite; all of them are named. Also if there is no moving average and ``raw`` is not
            set, or the window is not the one that this package decodes with.
        OSError: ``out`` cannot be written.
    """
    tensors = _read_tensors(checkpoint)
    averaged = [n for n in tensors if n.startswith(_AVERAGE) and n not in _AVERAGE_SETTINGS]
    if not raw and not averaged:
        raise ModelError(f"{checkpoint} holds no moving average of the weights; use --raw")
    try:
        config = published(_codebook_size(tensors))
    except ConfigError as error:
        raise ModelError(f"{checkpoint}: {error}") from error
    with torch.device("meta"):  # names and shapes only
        model = Autoencoder(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    state = _select(checkpoint, tensors, published_names(config), shapes, config, raw)
    source = "raw" if raw else "ema"
    origin = f"published checkpoint {Path(checkpoint).name}, {source} weights"
    save_model(out, config, state, metadata={"source": origin})
    return ImportSummary(config.quantizer.codebook_sizes[0], parameters, source)


def published_names(config: ModelConfig) -> dict[str, str]:
    """Name in ``Autoencoder(config).state_dict()`` -> name in a published ``state_dict``."""
    with torch.device("meta"):
        names = Autoencoder(config).state_dict()
    # The published encoder is one list: first, (residual block, ELU, strided) a stage, LSTM, ELU,
    # last.
    assert isinstance(config.encoder, SeanetEncoderConfig)
    lstm = 1 + 3 * len(config.encoder.strides)
    prefixes = (
        *_PREFIXES,
        ("encoder.lstm.", f"encoder.model.{lstm}.lstm."),
        ("encoder.last.", f"encoder.model.{lstm + 2}.conv."),
    )
    return {name: _published_name(name, prefixes) for name in names}


def _published_name(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for ours, theirs in _WEIGHT_NORM:
        name = name.replace(ours, theirs)
    stage = _STAGE.match(name)
    if stage:
        offset, part = _STAGE_PARTS[stage[2]]
        return f"encoder.model.{3 * int(stage[1]) + offset}.{part}.{name[stage.end() :]}"
    for ours, theirs in prefixes:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    raise KeyError(f"no published name for {name}")


def _read_tensors(checkpoint: Path) -> dict[str, Any]:
    """The ``state_dict`` of a Lightning file, mapped into memory."""
    try:
        # mmap takes the zip format alone, so the older ones, which torch reads by other means,
        # are refused with it.
        content = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot read the checkpoint {checkpoint}: {reason}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise ModelError(
            f"{checkpoint} cannot be read without executing code that it names{what}; "
            "it is refused, since that code could do anything"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(f"{checkpoint} is damaged or not a PyTorch checkpoint") from error
    tensors = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise ModelError(f"{checkpoint} is not a Lightning checkpoint: it has no 'state_dict'")
    return tensors


def _codebook_size(tensors: dict[str, Any]) -> int:
    """Entries of the basis; of the usual model if the basis is missing or not a matrix."""
    basis = tensors.get(_BASIS)
    if isinstance(basis, Tensor) and basis.ndim == 2:
        return basis.shape[0]
    return published().quantizer.codebook_sizes[0]


def _select(
    checkpoint: Path,
    tensors: dict[str, Any],
    names: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    config: ModelConfig,
    raw: bool,
) -> dict[str, Tensor]:
    """Tensors by our names, after all checks.

    The plain tensors must be there for both sources: every Lightning file has them.

    Raises:
        ModelError: see ``import_published``.
    """
    window = torch.hann_window(config.decoder.n_fft)
    expected = {theirs: shapes[ours] for ours, theirs in names.items()}
    expected[_WINDOW] = tuple(window.shape)
    averages = {
        theirs: _AVERAGE + theirs.replace(".", "") for theirs in names.values() if theirs != _BASIS
    }
    wanted = list(expected.items())
    if not raw:
        wanted += [(averages[theirs], expected[theirs]) for theirs in averages]

    used = {
        ours: theirs if raw or theirs == _BASIS else averages[theirs]
        for ours, theirs in names.items()
    }
    looked_at = {*used.values(), _WINDOW}

    faults: dict[str, list[str]] = {}
    # Names without dots are hard to read, so the plain name is added.
    plain = {average: f"{average} ({theirs})" for theirs, average in averages.items()}
    for name, shape in wanted:
        fault = _fault(tensors, name, shape, name in looked_at)
        if fault:
            faults.setdefault(fault, []).append(plain.get(name, name))
    known = {*expected, *averages.values(), *_AVERAGE_SETTINGS}
    for name in tensors:
        if name not in known and not name.startswith(_UNUSED):
            shown = name if name.isprintable() else ascii(name)
            faults.setdefault("unexpected", []).append(shown)
    if faults:
        listed = "; ".join(f"{fault}: {', '.join(which)}" for fault, which in faults.items())
        raise ModelError(f"the tensors in {checkpoint} are not the published model's; {listed}")
    if not torch.allclose(tensors[_WINDOW].float(), window, rtol=0, atol=1e-6):
        raise ModelError(
            f"{_WINDOW} in {checkpoint} is not the Hann window that this package decodes with"
        )
    return {ours: tensors[name] for ours, name in used.items()}


def _fault(
    tensors: dict[str, Any], name: str, shape: tuple[int, ...], look_at_values: bool
) -> str | None:
    """What is wrong with one tensor, if anything."""
    if name not in tensors:
        return "missing"
    value = tensors[name]
    if not isinstance(value, Tensor) or value.device.type != "cpu":
        return "without values"
    if value.layout is not torch.strided or value.dtype not in _DTYPES:
        return "not of floating point"
    if tuple(value.shape) != shape:
        return "of another shape"
    if look_at_values:
        # Unlike isfinite, this needs no further memory.
        extremes = torch.stack(torch.aminmax(value.detach()))
        if not extremes.float().isfinite().all():
            return "not finite"
    return None
