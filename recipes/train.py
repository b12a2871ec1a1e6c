"""Train a model.

    python recipes/train.py CONFIG --data DATA --out RUN [--resume | --init MODEL] [--dev DEV]
                            [--max-minutes N] [--max-steps N] [--device cuda] [--tensorboard]
    torchrun --nproc-per-node 8 recipes/train.py CONFIG ...

DATA is a packed folder (data_prep/pack.py) or a manifest. RUN/model.safetensors is a valid model
at any time: ``simvq-audio encode in.wav out.codes --model RUN/model.safetensors``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simvq_audio.training.run import train
from simvq_audio.training.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("train.py", description="Train a simvq-audio model.")
    parser.add_argument("config", type=Path, help="TOML file, such as recipes/compact/cpu.toml")
    parser.add_argument("--data", type=Path, required=True, help="packed folder or manifest")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="go on from RUN's last checkpoint, or its carry.pt"
    )
    start.add_argument("--init", help="start from a model: a file, or the name of an embedded one")
    parser.add_argument("--dev", type=Path, help="folder or manifest to validate on")
    parser.add_argument("--max-minutes", type=float, help="stop (resumably) after so many minutes")
    parser.add_argument("--max-steps", type=int, help="stop (resumably) after so many more steps")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    options = vars(args)
    train(options.pop("config"), options.pop("data"), options.pop("out"), **options)


if __name__ == "__main__":
    sys.exit(main())
