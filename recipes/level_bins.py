"""Take steady tones out of a trained model's upper band, without training.

    python recipes/level_bins.py CONFIG --data DATA --model MODEL --out OUT
                                 [--above HZ] [--crops N] [--rounds N] [--device cuda]

A bin of the inverse STFT whose phase goes on evenly from frame to frame is a tone. Above the band
that most recordings have, little in training speaks against one that stays on under all speech: the
bands of the mel loss are wider than it, and single bins count little there. On the spectrum it
stands as a stripe. Here log magnitudes above HZ become smooth from bin to bin: each is made by the
mean of its neighbours' weights, in the last layer. Then each bin is made quieter or louder by as
much as it still stands out, for its phase, on average over random crops of DATA, drawn as CONFIG
says. Nothing else changes, so codes stay the same. The result is another model all the same, with
another model_id.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from simvq_audio.codec.model_source import locate_model
from simvq_audio.device import find_device
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model, save_model
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.script import positive, run_script
from simvq_audio.training.source import open_source

# Batches are drawn as of steps that no run reaches, so that they are none of the run's own.
_FIRST_STEP = 2**41
# A bin is smoothed with so many on either side of it, and held against their median.
_NEIGHBOURS = 10
# How much of what stands out is taken away in a round; bins leak into their neighbours.
_SHARE = 0.8
# What is loud counts by its power, what is steady and soft by its logarithm.
_POWER_WEIGHT = 0.7
_QUIET = 1e-10
_DB = 10 / math.log(10)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("level_bins.py", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="TOML file that says how crops are drawn")
    parser.add_argument("--data", type=Path, required=True, help="packed folder or manifest")
    parser.add_argument("--model", required=True, help="a model file, or an embedded model's name")
    parser.add_argument("--out", type=Path, required=True, help="new model file")
    parser.add_argument("--above", type=float, default=7450.0, metavar="HZ")
    parser.add_argument("--crops", type=positive, default=240)
    parser.add_argument("--rounds", type=positive, default=14)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return run_script(parser, level, arguments)


@torch.no_grad()
def level(args: argparse.Namespace) -> None:
    device = find_device(args.device)
    model, header = load_model(locate_model(args.model), device)
    config = dataclasses.replace(TrainingConfig.load(args.config), model=header.config)
    head = model.decoder.head
    bins = head.n_fft // 2 + 1
    first = math.ceil(args.above * head.n_fft / header.config.sample_rate)
    if not 0 <= first < bins - _NEIGHBOURS:
        raise ConfigError(
            f"--above {args.above:g} leaves no band to level below "
            f"{header.config.sample_rate / 2:g} Hz"
        )
    codes = _codes(model, config, args.data, args.crops)
    _smooth(head.out, first, bins)
    for number in range(args.rounds + 1):
        change = prominence(_spectra(model, codes))
        # The bins next to the upper end have neighbours on one side only.
        change[:first] = change[bins - _NEIGHBOURS // 2 :] = 0
        band = change[first:]
        print(f"round {number:3d}: at most {band.max():.1f} dB, {band.square().mean().sqrt():.2f}")
        if number < args.rounds:
            head.out.bias[:bins] -= _SHARE * change / (2 * _DB)
    print(save_model(args.out, header.config, model.state_dict(), header.metadata))


def prominence(powers: Tensor) -> Tensor:
    """How far each bin stands out of its neighbours, (frames, bins) powers -> (bins,) dB."""
    mean = (powers.mean(dim=0) + _QUIET).log()
    typical = powers.clamp(min=_QUIET).log().mean(dim=0)
    return _DB * sum(
        weight * (levels - _median(levels))
        for weight, levels in ((_POWER_WEIGHT, mean), (1 - _POWER_WEIGHT, typical))
    )


def _median(levels: Tensor) -> Tensor:
    """The median around each of (bins,)."""
    around = torch.nn.functional.pad(levels, (_NEIGHBOURS, _NEIGHBOURS), value=float("nan"))
    return around.unfold(0, 2 * _NEIGHBOURS + 1, 1).nanmedian(dim=1).values


def _smooth(layer: nn.Linear, first: int, bins: int) -> None:
    """Make the log magnitudes of bins from ``first`` on means over their neighbours there.

    The head's log magnitudes come before its phases. Towards both ends of the band there are fewer
    neighbours, as many on either side.
    """
    for values in (layer.weight, layer.bias):
        before = values[:bins].clone()
        for index in range(first, bins):
            reach = min(_NEIGHBOURS, index - first, bins - 1 - index)
            values[index] = before[index - reach : index + reach + 1].mean(dim=0)


def _codes(model: Autoencoder, config: TrainingConfig, data: Path, crops: int) -> list[Tensor]:
    """Batches of (crops, frames) codes of the data's crops."""
    device = next(model.parameters()).device
    source, size = open_source(data, config, device), config.data.batch_size
    return [
        model.encode(source.batch(_FIRST_STEP + index, size)[0].to(device))
        for index in range(-(-crops // size))
    ]


def _spectra(model: Autoencoder, codes: list[Tensor]) -> Tensor:
    """(frames of all crops, bins) squared magnitudes of what these codes decode to."""
    head = model.decoder.head
    shape = {"hop_length": head.hop_length, "window": head.window, "return_complex": True}
    spectra = [torch.stft(model.decode(batch), head.n_fft, **shape) for batch in codes]
    return torch.cat(spectra).abs().square().transpose(1, 2).flatten(0, 1)


if __name__ == "__main__":
    sys.exit(main())
