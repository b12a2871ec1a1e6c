"""``export --onnx``: a folder of graphs for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simvq_audio.cli.console import CommandError, print_message
from simvq_audio.errors import needs_extra


def export_onnx(model: str, folder: Path, recordings: Sequence[Path], force: bool) -> None:
    """Write the graphs of a model after comparing them with PyTorch.

    Args:
        model: as for ``--model`` of the other commands.
        folder: for the graphs and their description.
        recordings: to compare on; none: pulses and noise.

    Raises:
        CommandError: the folder contains an export already.
        ModelError: the model has no graph, or its output differs.
    """
    from simvq_audio.onnx.model import DESCRIPTION_FILE, convert, save

    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file; --onnx writes into a folder")
    if (folder / DESCRIPTION_FILE).exists() and not force:
        raise CommandError(f"{folder / DESCRIPTION_FILE}: exists; --force overwrites it")
    with needs_extra("onnx"):
        import onnxruntime  # noqa: F401
    from simvq_audio.codec import Codec
    from simvq_audio.codec.model_source import locate_model
    from simvq_audio.onnx import Codec as OnnxCodec
    from simvq_audio.onnx.check import compare

    path = locate_model(model)
    description, graphs = convert(path)
    reference = Codec.load(path, device="cpu")
    comparison = compare(reference, OnnxCodec(description, graphs), recordings)
    save(folder, description, graphs)
    size = sum(map(len, graphs.values())) / 1e6
    print_message(
        f"{folder}: {', '.join(graphs)} and {DESCRIPTION_FILE}, {size:.1f} MB, "
        f"opset {description.opset}\n{comparison}"
    )
