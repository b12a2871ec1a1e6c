"""``train``, ``export`` and ``data``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from simvq_audio.cli.console import CommandError, progress
from simvq_audio.cli.options import ForceOption

JobsOption = Annotated[
    int,
    typer.Option("--jobs", min=1, help="Recordings read at a time. Default: one per CPU core."),
]
_CORES = os.cpu_count() or 1

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Prepare recordings for training: manifests and packed speech.",
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A TOML file, or one that ships, such as compact/cpu."
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Packed folder or manifest.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Run folder.", show_default=False)],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from OUT's last checkpoint, or its carry.pt.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Start from a model: a file, or the name of an embedded one.",
            show_default=False,
        ),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option("--dev", help="Folder or manifest to validate on.", show_default=False),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", help="Stop (resumably) after this.", show_default=False),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            "--max-steps", help="Stop (resumably) after this many more steps.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
    ] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write OUT/tensorboard as well.")
    ] = False,
) -> None:
    """Train a model.

    OUT/model.safetensors is a valid model at any time. For several GPUs:
    torchrun --nproc-per-node 8 -m simvq_audio train RECIPE ...
    """
    if resume and init is not None:
        raise CommandError("--resume continues a run, --init begins one; give one of them")
    from simvq_audio.training.recipes import find_recipe
    from simvq_audio.training.run import train as run

    run(
        find_recipe(recipe),
        data,
        out,
        resume=resume,
        init=init,
        dev=dev,
        max_minutes=max_minutes,
        max_steps=max_steps,
        device=device,
        tensorboard=tensorboard,
    )


def export(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A run's model.safetensors, or with --onnx any."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The model file to write; with --onnx a folder.")
    ],
    description: Annotated[
        str | None, typer.Option("--description", help="One line.", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Of the weights.", show_default=False)
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX graphs for other runtimes into OUT.")
    ] = False,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            metavar="RECORDING",
            help="With --onnx: compare with PyTorch on this recording; may be repeated.",
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Turn a run's model into a file to publish: half the size, with description and licence.

    With --onnx: into encoder.onnx, decoder.onnx and codec.json, after a comparison with PyTorch.
    """
    from simvq_audio.cli.paths import refuse_same, refuse_target_file

    if onnx:
        if description is not None or licence is not None:
            raise CommandError("--description and --licence are not for --onnx")
        from simvq_audio.cli.onnx_export import export_onnx

        export_onnx(str(model), out, check or [], force)
        return
    if check:
        raise CommandError("--check goes with --onnx")
    if description is None or licence is None:
        raise CommandError("a model file to publish needs --description and --licence")
    refuse_same(str(model), str(out))
    refuse_target_file(out, force=force)
    from simvq_audio.model.storage import load_model, save_model

    network, header = load_model(model)
    metadata = {**header.metadata, "description": description, "licence": licence}
    model_id = save_model(out, header.config, network.state_dict(), metadata, half=True)
    print(f"{out}: model {model_id}, {out.stat().st_size / 1e6:.1f} MB")


@data.command()
def folder(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder, .tar archive or .jsonl manifest.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the manifests.")],
    dev_share: Annotated[float, typer.Option("--dev-share", help="Of the total duration.")] = 0.05,
    speaker_from: Annotated[
        str | None,
        typer.Option(
            "--speaker-from",
            metavar="REGEX",
            help="Its first group is the speaker in a path. Default: the file's folder.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split.")] = 0,
    jobs: JobsOption = _CORES,
) -> None:
    """Write manifests for a folder or a .tar archive, split so that no speaker is in both parts."""
    from simvq_audio.training.prepare import prepare_folder

    skipped = prepare_folder(
        source,
        out,
        dev_share=dev_share,
        speaker_from=speaker_from,
        seed=seed,
        jobs=jobs,
        progress=_progress,
    )
    _print_skipped(skipped)


@data.command()
def libritts(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="For downloads and manifests.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="An existing tree, instead of downloads.", show_default=False),
    ] = None,
    subsets: Annotated[
        str | None,
        typer.Option(
            "--subsets",
            help="Names separated by commas. Default: all seven, or those found in --root.",
            show_default=False,
        ),
    ] = None,
    jobs: JobsOption = _CORES,
) -> None:
    """Write manifests for LibriTTS; download it first unless --root names it."""
    from simvq_audio.training.prepare import prepare_libritts

    names = None if subsets is None else [name.strip() for name in subsets.split(",")]
    _print_skipped(prepare_libritts(out, root=root, subsets=names, jobs=jobs, progress=_progress))


@data.command()
def pack(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="What to pack (.jsonl).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    sample_rate: Annotated[int, typer.Option("--sample-rate", min=1, help="In Hz.")] = 24_000,
    jobs: JobsOption = _CORES,
) -> None:
    """Pack the recordings of a manifest for fast training: mono, 2 bytes per sample."""
    from simvq_audio.training.prepare import pack_manifest

    _print_skipped(
        pack_manifest(manifest, out, sample_rate=sample_rate, jobs=jobs, progress=_progress)
    )


def _progress(label: str, total: float):
    return progress(label, total, quiet=False)


def _print_skipped(unreadable: list[str]) -> None:
    """List unreadable recordings on standard error, and their number."""
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    if unreadable:
        print(f"{len(unreadable)} unreadable recordings skipped", file=sys.stderr)
