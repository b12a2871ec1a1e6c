"""``info`` and ``models``: what a file and the installation contain; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simvq_audio.cli.console import describe_duration, describe_size, print_json, print_message
from simvq_audio.cli.options import JsonOption

if TYPE_CHECKING:
    from simvq_audio.bitstream import Codes, Layout


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .codes file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a .codes file contains, without decoding it."""
    from simvq_audio.bitstream import Codes, read_layout
    from simvq_audio.embedded import embedded_models
    from simvq_audio.nested import book_by_id

    codes = Codes.load(file)
    layout = read_layout(file)
    book = book_by_id(codes.codes_id)
    full_id = codes.codes_id if book is None else book.full_codes_id
    names = [model.name for model in embedded_models() if model.decodes(full_id)]
    facts = _facts(file, codes, layout, names[0] if names else None)
    if as_json:
        print_json(facts)
        return
    model = facts["model"] or "another model, not one built in"
    rows = {
        "file": f"{file}, {describe_size(facts['file_bytes'])}",
        "recording": (
            f"{describe_duration(codes.duration)}, {codes.channels} "
            f"channel{'s' * (codes.channels > 1)} at {codes.sample_rate} Hz, "
            f"{codes.num_samples} samples"
        ),
        "codes": (
            f"{codes.num_frames} frames of {codes.bits_per_frame} bits, "
            f"{_describe_codebooks(codes.codebook_sizes)}"
        ),
        "bit rate": (
            f"{facts['file_kbps']:.3f} kbit/s, {facts['coded_kbps']:.3f} without the "
            f"{facts['header_bytes']} bytes of header and checksum; {facts['nominal_kbps']:.3f} "
            "at fixed width"
        ),
        "coding": _describe_coding(facts),
        "model": f"{model}, {'' if book is None else 'nested '}codes {codes.codes_id}",
    }
    print_message(_table(rows))


def models(as_json: JsonOption = False) -> None:
    """List the models that are built in."""
    from simvq_audio.embedded import embedded_models

    entries: list[dict[str, Any]] = [
        {
            "name": model.name,
            "codes_id": model.codes_id,
            "model_id": model.model_id,
            "sample_rate": model.sample_rate,
            "frame_rate": model.frame_rate,
            "codebook_size": model.codebook_size,
            "kbps": model.bitrate / 1000,
            "parameters": model.parameters,
            "file_bytes": model.file_bytes,
            "licence": model.licence,
            "description": model.description,
            "path": str(model.path),
        }
        for model in embedded_models()
    ]
    if as_json:
        print_json({"models": entries})
        return
    texts = []
    for entry in entries:
        rows = {
            "id": f"codes {entry['codes_id']}, model {entry['model_id']}",
            "codes": (
                f"{entry['kbps']:.3f} kbit/s: {entry['frame_rate']:g} frames per second, "
                f"codebook of {entry['codebook_size']} entries"
            ),
            "audio": f"{entry['sample_rate']} Hz",
            "size": f"{entry['parameters']} parameters, {describe_size(entry['file_bytes'])}",
            "licence": entry["licence"],
        }
        texts.append(f"{entry['name']}: {entry['description']}\n{_table(rows)}")
    print_message("\n\n".join(texts) or "no model is built in")


def _facts(file: Path, codes: Codes, layout: Layout, model: str | None) -> dict[str, Any]:
    from simvq_audio.bitstream import OVERHEAD_BYTES

    size = file.stat().st_size
    # kbit/s of one channel, as everywhere; 0 for an empty recording.
    seconds = codes.duration * codes.channels
    per_byte = 8 / seconds / 1000 if seconds else 0.0
    return {
        "file": str(file),
        "file_bytes": size,
        "header_bytes": OVERHEAD_BYTES,
        "seconds": codes.duration,
        "channels": codes.channels,
        "sample_rate": codes.sample_rate,
        "num_samples": codes.num_samples,
        "frames": codes.num_frames,
        "codebook_size": codes.codebook_size,
        "bits_per_code": codes.bits_per_code,
        "file_kbps": size * per_byte,
        "coded_kbps": (size - OVERHEAD_BYTES) * per_byte,
        "nominal_kbps": codes.payload_bitrate / 1000,
        "codes_id": codes.codes_id,
        "model": model,
        "coding": layout.coding,
        "prior_id": layout.prior_id,
        "blocks": layout.blocks,
        "plain_blocks": layout.plain_blocks,
    }


def _describe_coding(facts: dict[str, Any]) -> str:
    if facts["prior_id"] is None:
        return "fixed width"
    blocks, plain = facts["blocks"], facts["plain_blocks"]
    return (
        f"entropy-coded with the prior {facts['prior_id']}, {blocks} block{'s' * (blocks > 1)}"
        + (f", {plain} of them at fixed width" if plain else "")
    )


def _describe_codebooks(sizes: tuple[int, ...]) -> str:
    if len(sizes) == 1:
        return f"codebook of {sizes[0]} entries"
    return f"{len(sizes)} codebooks of {', '.join(map(str, sizes))} entries"


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())
