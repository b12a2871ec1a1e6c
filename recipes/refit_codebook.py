"""Move a trained model's codebook to the means of the latents that it stands for, without training.

    python recipes/refit_codebook.py CONFIG --data DATA --model MODEL --out OUT
                                     [--crops N] [--rounds N] [--device cuda]

W learns by gradient and C is frozen, so after training the entries lie a little beside the middle
of their cells. Some rounds of k-means (Lloyd) put them there; encoder and decoder stay. Latents
are those of random crops of DATA, drawn as CONFIG says. A tenth of the crops is held out: the
error on it is what to believe. The result is another model, whose codes the former one refuses.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from simvq_audio.device import find_device
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.quantizer import SimVQ
from simvq_audio.model.storage import load_model, save_model
from simvq_audio.model_source import locate_model
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.quantizer_start import move_basis_to_means
from simvq_audio.training.script import positive, run_script
from simvq_audio.training.source import open_source

# Batches are drawn as of steps that no run reaches, so that they are none of the run's own.
_FIRST_STEP = 2**41


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("refit_codebook.py", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="TOML file that says how crops are drawn")
    parser.add_argument("--data", type=Path, required=True, help="packed folder or manifest")
    parser.add_argument("--model", required=True, help="a model file, or an embedded model's name")
    parser.add_argument("--out", type=Path, required=True, help="new model file")
    parser.add_argument("--crops", type=positive, default=6000)
    parser.add_argument("--rounds", type=positive, default=12)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return run_script(parser, refit, arguments)


@torch.no_grad()
def refit(args: argparse.Namespace) -> None:
    device = find_device(args.device)
    model, header = load_model(locate_model(args.model), device)
    config = dataclasses.replace(TrainingConfig.load(args.config), model=header.config)
    latents = _latents(model, config, args.data, args.crops)
    cut = len(latents) - max(1, len(latents) // 10)
    fitted, held_out = latents[:cut], latents[cut:]
    if fitted.shape[0] * fitted.shape[2] < model.quantizer.config.codebook_size:
        raise ConfigError(
            f"{args.crops} crops of {config.data.crop_seconds:g} s have fewer latents than the "
            "codebook has entries; raise --crops"
        )
    print(f"start     {_error(model.quantizer, held_out):.5f} of the latents' variance")
    for number in range(1, args.rounds + 1):
        move_basis_to_means(model.quantizer, fitted)
        print(f"round {number:3d} {_error(model.quantizer, held_out):.5f}")
    print(save_model(args.out, header.config, model.state_dict(), header.metadata))


def _latents(model: Autoencoder, config: TrainingConfig, data: Path, crops: int) -> Tensor:
    """(crops, latent_dim, frames) of the data's crops."""
    device = next(model.parameters()).device
    source, size = open_source(data, config, device), config.data.batch_size
    latents = []
    for index in range(-(-crops // size)):
        waveforms, _ = source.batch(_FIRST_STEP + index, size)
        latents.append(model.encode_latent(waveforms.to(device)))
    return torch.cat(latents)[:crops]


def _error(quantizer: SimVQ, latents: Tensor) -> float:
    """Mean squared distance to the nearest entry, as a share of the latents' variance."""
    entries = quantizer.decode(quantizer.encode(latents))
    spread = latents - latents.mean(dim=(0, 2), keepdim=True)
    return ((latents - entries).square().mean() / spread.square().mean()).item()


if __name__ == "__main__":
    sys.exit(main())
