"""Judge generated speech: how natural it sounds, and how far its codes are from those of speech.

    python recipes/repair/generated.py real.npz OUT.jsonl --samples 6 --seconds 6

``real.npz`` holds codes of recordings, as ``recipes/prior/train.py codes`` writes it. Rows: masked
sampling with 8 to 64 steps in both orders, the entropy coder's causal prior drawn code by code, and
real speech. Columns: DistillMOS; Jensen-Shannon divergences in bits, of clusters of codes (128, of
the causal prior), of pairs of clusters in a row, and of how many frames a cluster lasts; the share
of codes that are distinct; and bits per frame under the causal prior, low where a sampler repeats
itself. The divergences are those of one number of frames, so real speech has them too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from judges import judges

from simvq_audio.audio import resample
from simvq_audio.codec import Codec
from simvq_audio.codec.generation import generate
from simvq_audio.prior import CausalPrior, prior_for_codes
from simvq_audio.prior.integers import TOTAL_FREQUENCY
from simvq_audio.prior.masked.sampling import ORDERS, Sampling


def causal(prior: CausalPrior, frames: int, seed: int) -> np.ndarray:
    """Codes (frames,) drawn one after the other."""
    rng, state = np.random.default_rng(seed), prior.start(1)
    codes = np.empty(frames, np.int64)

    def drawn(table: np.ndarray) -> np.ndarray:
        return (np.cumsum(table, 1) <= rng.integers(0, TOTAL_FREQUENCY)).sum(1)

    for frame in range(frames):
        cluster = drawn(state.clusters(1))
        codes[frame] = prior.tree[cluster, drawn(state.members(cluster))][0]
        state.push(codes[frame : frame + 1])
    return codes


def divergence(one: np.ndarray, two: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms, in bits."""
    p, q = one / one.sum(), two / two.sum()
    middle = (p + q) / 2
    parts = [
        np.where(x > 0, x * np.log2(np.where(x > 0, x, 1) / middle.clip(1e-30)), 0).sum()
        for x in (p, q)
    ]
    return float(sum(parts) / 2)


def histograms(prior: CausalPrior, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Counts of clusters, of pairs of them, and of their durations up to 15 frames."""
    size = len(prior.tree)
    clusters = [prior.locate(codes)[0] for codes in rows]
    single = sum(np.bincount(c, minlength=size) for c in clusters)
    pairs = sum(np.bincount(c[:-1] * size + c[1:], minlength=size**2) for c in clusters)
    lasting = np.zeros(16)
    for c in clusters:
        edges = np.flatnonzero(np.diff(c)) + 1
        lasting += np.bincount(np.diff([0, *edges, len(c)]).clip(max=15), minlength=16)
    return {"clusters": single, "pairs": pairs, "durations": lasting}


def bits(prior: CausalPrior, rows: list[np.ndarray]) -> float:
    """Bits per frame under the causal prior."""
    total = [-np.log2(prior.intervals(c[None])[1] / TOTAL_FREQUENCY).sum() for c in rows]
    return float(sum(total) / sum(map(len, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--steps", default="8,16,32,64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    codec, judge = Codec.load(device="cpu"), judges(("distillmos",))["distillmos"]
    prior = prior_for_codes(codec.codes_id)
    assert prior is not None
    frames = round(arguments.seconds * codec.frame_rate)
    with np.load(arguments.real) as data:
        parts = np.split(data["codes"].astype(np.int64), np.cumsum(data["lengths"])[:-1])
    order = np.random.default_rng(0).permutation(len(parts))
    stream = np.concatenate([parts[i] for i in order])
    # Real speech to be judged comes first; what all are compared with, after it.
    held = arguments.samples * frames
    real = [stream[i * frames : (i + 1) * frames] for i in range(arguments.samples)]
    reference = histograms(prior, [stream[held:]])

    def masked(how: Sampling) -> Callable[[int], np.ndarray]:
        return lambda seed: generate(codec, arguments.seconds, seed=seed, how=how).indices[0]

    ways: dict[str, Callable[[int], np.ndarray]] = {
        "real speech": lambda seed: real[seed],
        "causal prior": lambda seed: causal(prior, frames, seed),
    }
    for steps in map(int, arguments.steps.split(",")):
        for name in ORDERS:
            ways[f"{name}, {steps} steps"] = masked(Sampling(name, steps))
    ways["confidence, 32 steps, temperature 0.8"] = masked(Sampling("confidence", 32, 0.8))
    ways["ancestral, 32 steps, temperature 0.8"] = masked(Sampling("ancestral", 32, 0.8))
    done = set()
    if arguments.out.exists():
        done = {json.loads(line)["way"] for line in arguments.out.read_text().splitlines()}
    for way, draw in ways.items():
        if way in done:
            continue
        rows = [draw(seed).astype(np.int64) for seed in range(arguments.samples)]
        sound = [
            resample(codec.decode(codec.codes_from_indices(c)).numpy(), codec.sample_rate, 16_000)[
                0
            ]
            for c in rows
        ]
        found = histograms(prior, rows)
        row = {
            "way": way,
            "distillmos": mean(judge(x, x) for x in sound),
            **{name: divergence(found[name], reference[name]) for name in found},
            "distinct": len(np.unique(np.concatenate(rows))) / sum(map(len, rows)),
            "bits": bits(prior, rows),
        }
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print("  ".join(f"{k} {v:.3f}" if k != "way" else v for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
