"""Train a model.

    python recipes/train.py CONFIG --data PACKED --out RUN [--resume | --init MODEL]
                            [--max-minutes N] [--steps N]

PACKED comes from data_prep/pack.py. RUN/model.safetensors is a valid model at any time:
``simvq-audio encode in.wav out.codes --model RUN/model.safetensors``.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from pathlib import Path

import torch

from simvq_audio.errors import SimvqAudioError
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.packed import PackedSpeech
from simvq_audio.training.trainer import Trainer


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a simvq-audio model.")
    parser.add_argument(
        "config", type=Path, help="TOML file, for instance recipes/compact/cpu.toml"
    )
    parser.add_argument("--data", type=Path, required=True, help="packed folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from RUN/checkpoint.pt")
    start.add_argument("--init", type=Path, help="start from the weights of a model file")
    parser.add_argument("--max-minutes", type=float, help="stop (resumably) after so many minutes")
    parser.add_argument("--steps", type=int, help="the run's last step, instead of the config's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        return train(args)
    except (SimvqAudioError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 1


def train(args: argparse.Namespace) -> int:
    config = TrainingConfig.load(args.config)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=args.steps)
    if (args.out / "checkpoint.pt").exists() and not args.resume:
        print(
            f"train.py: error: {args.out} holds a run already; add --resume to go on with it, "
            "or choose another --out",
            file=sys.stderr,
        )
        return 1
    sample_rate = config.model.sample_rate
    data = PackedSpeech(
        args.data,
        sample_rate=sample_rate,
        crop_samples=round(config.data.crop_seconds * sample_rate),
        speaker_power=config.data.speaker_power,
        gain_db=config.data.gain_db,
        seed=config.seed,
    )
    trainer = Trainer(config, data, args.out, torch.device(args.device))
    if args.resume:
        trainer.resume()
    elif args.init:
        trainer.start_from_model(args.init)
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _: stopped.append(number))
    deadline = time.monotonic() + 60 * args.max_minutes if args.max_minutes else float("inf")
    trainer.run(lambda: bool(stopped) or time.monotonic() > deadline, _report)
    print(f"step {trainer.step} of {config.steps}; model: {args.out / 'model.safetensors'}")
    return 0


def _report(row: dict[str, float]) -> None:
    numbers = {k: v for k, v in row.items() if k != "step"}
    print(f"step {row['step']}", *(f"{k} {v:.4g}" for k, v in numbers.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
