"""Write a model in fewer bits: the same codes but for a few, and nearly the same sound.

    python recipes/compress/small.py RECORDINGS OUT.safetensors --name compact-1-small
        [--model compact-1] [--minutes 8] [--encoder-cost -42.4] [--decoder-cost -21.7]

Matrices become whole numbers with steps (rounding.py), everything else float16; the quantiser stays
as it is, so that the codes_id does. RECORDINGS, of which ``--minutes`` are taken, are speech like
that which the model was trained on. A cost one lower makes a part larger by half a bit per weight:
choose them by the sizes that are printed and by what evaluation says.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rounding import decoder_moments, encoder_moments, matrices, rounded
from torch import Tensor

from simvq_audio.audio import read_audio, resample
from simvq_audio.codec.model_source import locate_model
from simvq_audio.evaluation.recordings import find_recordings
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.compressed import Steps
from simvq_audio.model.storage import load_model, save_model


def compress(
    model: Autoencoder, waveforms: list[Tensor], encoder_cost: float, decoder_cost: float
) -> dict[str, Steps]:
    """The matrices of encoder and decoder as whole numbers, by name.

    Args:
        waveforms: (1, samples) at the model's rate.
        encoder_cost, decoder_cost: logarithm to base 2 of what rounding a weight may cost.
    """
    rate, found = model.config.sample_rate, {}
    with torch.inference_mode():
        codes = [model.encode(waveform) for waveform in waveforms]
    codes = [each.clone() for each in codes]
    frames = sum(each.numel() for each in codes)
    for part, moments, cost in (
        ("encoder", encoder_moments(model, waveforms), encoder_cost),
        ("decoder", decoder_moments(model, codes, rate), decoder_cost),
    ):
        size = 0
        for name, layer in matrices(getattr(model, part)).items():
            inputs, gradients = moments.inputs[name] / frames, moments.gradients[name] / frames
            held = rounded(layer.weight.detach(), inputs, gradients, 2.0**cost)
            found[f"{part}.{name}.weight"] = held
            size += sum(array.nbytes for array in held.to_tensors(name).values())
        print(f"{part}: {size / 1e6:.2f} MB", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Compress and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="small", help="of the new model")
    parser.add_argument("--model", default="compact-1")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--encoder-cost", type=float, default=-42.4)
    parser.add_argument("--decoder-cost", type=float, default=-21.7)
    given = parser.parse_args(arguments)
    model, header = load_model(locate_model(given.model))
    recordings, waveforms, seconds = find_recordings(given.recordings), [], 0.0
    order = np.random.default_rng(0).permutation(len(recordings.names))
    for index in order:
        waveform, rate = read_audio(recordings.path(recordings.names[index]))
        native = resample(waveform[:1], rate, header.config.sample_rate)
        if native.shape[1] > header.config.sample_rate:
            waveforms.append(torch.from_numpy(np.ascontiguousarray(native)))
            seconds += native.shape[1] / header.config.sample_rate
        if seconds > 60 * given.minutes:
            break
    # The quantiser must stay as it is to the last bit, which float16 does not allow every model.
    half = all(torch.equal(x, x.half().float()) for x in model.quantizer.state_dict().values())
    compressed = compress(model, waveforms, given.encoder_cost, given.decoder_cost)
    model_id = save_model(
        given.out,
        replace(header.config, name=given.name),
        model.state_dict(),
        {**header.metadata, "source": f"model {header.model_id} in fewer bits"},
        half=half,
        compressed=compressed,
    )
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB, model {model_id}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
