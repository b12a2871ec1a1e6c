"""Train the prior over the codes of a model, on one CPU thread.

    python recipes/prior/train.py codes TRAINING_FOLDER train.npz
    python recipes/prior/train.py codes HELD_OUT_FOLDER dev.npz
    python recipes/prior/train.py fit train.npz dev.npz RUN --minutes 25
    python recipes/prior/train.py export RUN simvq_audio/prior/compact-1.safetensors

``--model`` names another model than the default one. ``fit`` resumes where it was stopped. Its
schedule depends on the minutes spent; after 60 % it trains with the rounding of the integer
evaluation.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path

import network
import numpy as np
import torch
from network import Prior, PriorShape, to_integers

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.bitstream.blocks import BLOCK_FRAMES
from simvq_audio.codec import Codec
from simvq_audio.embedded import DEFAULT_MODEL
from simvq_audio.prior import save_prior

BATCH_FRAMES = 4096
SHORTEST = 20
MUON_RATE, ADAM_RATE = 0.02, 3e-3
QUANTIZED_FROM, FULL_PRECISION_FROM = 0.6, 0.96


def make_codes(folder: Path, out: Path, model: str) -> None:
    """Encode the first channel of every recording of a folder."""
    codec = Codec.load(model, device="cpu")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    codes = [codec.encode_file(path).indices[0].astype(np.uint16) for path in paths]
    np.savez(
        out,
        codes=np.concatenate(codes),
        lengths=[len(row) for row in codes],
        paths=[str(path.relative_to(folder)) for path in paths],
    )


def read_codes(path: Path) -> list[np.ndarray]:
    """An int64 array per recording."""
    with np.load(path) as data:
        ends = np.cumsum(data["lengths"])[:-1]
        return np.split(data["codes"].astype(np.int64), ends)


def principal(codebook: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Codebook in the axes of the codes' covariance, with those above 1e-4 of its trace."""
    used = codebook[codes].astype(np.float64)
    _, scale, axes = np.linalg.svd(np.cov(used.T))
    live = scale > 1e-4 * scale.sum()
    return (codebook - used.mean(0)) @ axes[live].T


def split(vectors: np.ndarray, index: np.ndarray, levels: int) -> list[np.ndarray]:
    """Halve a set of codes at the median of its main axis, recursively ``levels`` times."""
    if levels == 0:
        return [np.sort(index)]
    own = vectors[index] - vectors[index].mean(0)
    order = np.argsort(own @ np.linalg.svd(own, full_matrices=False)[2][0], kind="stable")
    half = len(index) // 2
    return [
        part
        for side in (index[order[:half]], index[order[half:]])
        for part in split(vectors, side, levels - 1)
    ]


def begin(codebook: np.ndarray, recordings: list[np.ndarray]) -> Prior:
    """A network that starts from the geometry of the codebook and the counts of the codes."""
    shape = PriorShape.for_codebook(len(codebook))
    codes = np.concatenate(recordings)
    vectors = principal(codebook, codes[:: max(1, len(codes) // 60_000)])
    levels = shape.clusters.bit_length() - 1
    members = torch.from_numpy(np.stack(split(vectors, np.arange(len(codebook)), levels)))
    model = Prior(shape, members)
    counts = torch.from_numpy(np.bincount(codes, minlength=len(codebook)) + 0.5)
    white = torch.from_numpy(vectors / vectors.std(0)).float()
    centre = white[members].mean(1, keepdim=True)
    with torch.no_grad():
        dims = white.shape[1]
        model.embedding[:-1, :dims] = 0.8 * white
        model.embedding.clamp_(-3.9, 3.9)
        model.entry_bias.copy_((counts / counts.sum()).log())
        model.cluster_bias.copy_((counts[members].sum(1) / counts.sum()).log())
        model.entries[members.reshape(-1), :dims] += (white[members] - centre).reshape(-1, dims)
    return model


def batches(recordings: list[np.ndarray], rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Blocks as the coder cuts them, from a random start, grouped by length."""
    blocks = []
    for codes in recordings:
        first = int(rng.integers(0, BLOCK_FRAMES)) if len(codes) > BLOCK_FRAMES else 0
        cuts = [0, *range(first or BLOCK_FRAMES, len(codes), BLOCK_FRAMES), len(codes)]
        blocks += [codes[a:b] for a, b in pairwise(cuts) if b - a > SHORTEST]
    order = np.argsort([len(block) * np.exp(0.05 * rng.standard_normal()) for block in blocks])
    groups: list[list[np.ndarray]] = [[]]
    for i in order:
        if sum(map(len, groups[-1])) >= BATCH_FRAMES:
            groups.append([])
        groups[-1].append(blocks[i])
    rng.shuffle(groups)
    return groups


def padded(blocks: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, lengths) of blocks as one batch."""
    lengths = torch.tensor([len(block) for block in blocks])
    codes = torch.zeros(len(blocks), int(lengths.max()), dtype=torch.long)
    for row, block in zip(codes, blocks):
        row[: len(block)] = torch.from_numpy(block)
    return codes, lengths


@torch.no_grad()
def held_out_bits(model: Prior, recordings: list[np.ndarray]) -> float:
    """Bits per frame."""
    blocks = [
        codes[i : i + BLOCK_FRAMES]
        for codes in recordings
        for i in range(0, len(codes), BLOCK_FRAMES)
    ]
    blocks.sort(key=len)
    costs = [sum(model.bits(*padded(blocks[i : i + 12]))) for i in range(0, len(blocks), 12)]
    return torch.cat(costs).mean().item()


def fit(train: Path, dev: Path, run: Path, minutes: float, model: str) -> None:
    """Train, or resume from ``run/state.pt``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run.mkdir(parents=True, exist_ok=True)
    recordings, held_out = read_codes(train), read_codes(dev)
    prior = begin(Codec.load(model, device="cpu").codebook(), recordings)
    matrices = [prior.first, *prior.layers, prior.to_query, prior.to_clusters]
    others = [p for p in prior.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    step, spent = 0, 0.0
    state_path = run / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        prior.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    rng = np.random.default_rng(step)
    queue: list[list[np.ndarray]] = []
    began = time.monotonic() - spent

    def save() -> None:
        state = {"model": prior.state_dict(), "step": step, "spent": time.monotonic() - began}
        state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
        torch.save(state, run / "new.pt")
        (run / "new.pt").replace(state_path)

    while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
        prior.quantized = done >= QUANTIZED_FROM
        network._linear.half = done < FULL_PRECISION_FROM
        rate = min(1.0, (step + 1) / 60, max(0.01, (1 - done) / 0.7))
        for optimizer, full in zip(optimizers, (MUON_RATE, ADAM_RATE)):
            optimizer.param_groups[0]["lr"] = rate * full
        queue = queue or batches(recordings, rng)
        loss = sum(cost.mean() for cost in prior.bits(*padded(queue.pop())))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step % 200 == 0:
            bits = held_out_bits(prior, held_out)
            print(f"step {step}: {loss.item():.3f} bits, held out {bits:.3f}", flush=True)
            save()
    prior.quantized, network._linear.half = True, False
    save()
    print(f"held out {held_out_bits(prior, held_out):.4f} bits per frame")


def export(run: Path, out: Path, description: str, model: str) -> None:
    """Write the prior file of a run."""
    state = torch.load(run / "state.pt", weights_only=True)["model"]
    prior = Prior(PriorShape.for_codebook(len(state["place"])), state["members"])
    prior.load_state_dict(state)
    codes_id = Codec.load(model, device="cpu").codes_id
    metadata = {"description": description, "licence": "MIT"}
    print(save_prior(out, to_integers(prior), codes_id, prior.shape.dilations, metadata))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    codes = commands.add_parser("codes")
    fitting = commands.add_parser("fit")
    exporting = commands.add_parser("export")
    for name in ("folder", "out"):
        codes.add_argument(name, type=Path)
    for name in ("train", "dev", "run"):
        fitting.add_argument(name, type=Path)
    fitting.add_argument("--minutes", type=float, default=25.0)
    for name in ("run", "out"):
        exporting.add_argument(name, type=Path)
    exporting.add_argument("--description", default="Causal convolutions over codes")
    for command in (codes, fitting, exporting):
        command.add_argument("--model", default=DEFAULT_MODEL, help="a name or a model file")
    arguments = vars(parser.parse_args())
    {"codes": make_codes, "fit": fit, "export": export}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
