"""Train a model.

    python recipes/train.py CONFIG --data DATA --out RUN [--resume | --init MODEL] [--dev DEV]
                            [--max-minutes N] [--max-steps N] [--device cuda] [--tensorboard]
    torchrun --nproc-per-node 8 recipes/train.py CONFIG ...

DATA is a packed folder (data_prep/pack.py) or a manifest. RUN/model.safetensors is a valid model
at any time: ``simvq-audio encode in.wav out.codes --model RUN/model.safetensors``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch.distributed

from simvq_audio.errors import ConfigError
from simvq_audio.model_source import locate_model
from simvq_audio.training.checkpoint import find_checkpoint
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.devices import make_fabric
from simvq_audio.training.script import run_script
from simvq_audio.training.source import open_source
from simvq_audio.training.trainer import MODEL, Trainer
from simvq_audio.training.validation import ValidationSet
from simvq_audio.training.watch import Watch


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
    try:
        return run_script(parser, train, arguments)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def train(args: argparse.Namespace) -> None:
    started = time.monotonic()
    config = TrainingConfig.load(args.config)
    if find_checkpoint(args.out) and not args.resume:
        raise ConfigError(
            f"{args.out} holds a run already; go on with it by --resume, or choose another --out"
        )
    fabric = make_fabric(args.device, config.precision)
    source = open_source(args.data, config, fabric.device)
    first = fabric.is_global_zero
    validation = watch = None
    if args.dev:
        validation = ValidationSet(args.dev, config.validation, config.model.sample_rate)
    if first:
        watch = Watch(args.out, config.steps, tensorboard=args.tensorboard)
    trainer = Trainer(config, fabric, source, args.out, validation=validation, watch=watch)
    if args.resume:
        path = trainer.resume()
        if first:
            print(f"going on from {path}, step {trainer.step}")
    elif args.init:
        trainer.start_from_model(locate_model(args.init))
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _: stopped.append(number))
    limit = 60 * args.max_minutes if args.max_minutes is not None else float("inf")
    trainer.run(lambda: bool(stopped) or time.monotonic() - started > limit, args.max_steps)
    if first:
        print(f"step {trainer.step} of {config.steps}; model: {args.out / MODEL}")


if __name__ == "__main__":
    sys.exit(main())
