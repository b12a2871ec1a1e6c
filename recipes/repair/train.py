"""Train the masked prior, which repairs and generates codes, over cached codes of a model.

    python recipes/prior/train.py codes TRAINING_FOLDER train.npz
    python recipes/prior/train.py codes HELD_OUT_FOLDER dev.npz
    python recipes/repair/train.py fit train.npz dev.npz RUN --minutes 60
    python recipes/repair/train.py export RUN simvq_audio/prior/masked/compact-1.safetensors

``fit`` resumes where it was stopped; its schedule depends on the minutes spent. The objective is
that of an absorbing-state diffusion: a share t of a crop's codes is hidden, and the cross-entropy
of the hidden codes is weighted by 1 / max(t, 0.1). For half of the crops t is uniform in (0, 1) and
the codes are hidden independently; for the other half t is at most 0.5 and codes are hidden in
bursts of 1 to 12, as packets are lost.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simvq_audio.codec import Codec
from simvq_audio.prior.masked import save_masked_prior
from simvq_audio.prior.masked.network import MaskedPrior, MaskedShape


@dataclass(frozen=True)
class Options:
    """Settings of a training run.

    Attributes:
        minutes: that it takes in all; the learning rates fall to 0 at the end.
        lengths: of crops, frames; each batch has one of them.
        batch_frames: frames in a batch.
        muon_rate, adam_rate: learning rates of the matrices and of the tables and vectors.
        bursts: burst lengths, of which each crop with bursts has one.
        smallest_ratio: of hidden codes, below which the weight 1/t stops growing.
        save_seconds, check_seconds: between saved states, and between checks on held-out codes.
        bfloat16: whether matrix products are computed in bfloat16.
        device: where it runs.
        seed: of everything random.
    """

    minutes: float = 60.0
    lengths: tuple[int, ...] = (72, 128, 192, 256)
    batch_frames: int = 2048
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    bursts: tuple[int, ...] = (1, 1, 2, 3, 4, 6, 8, 12)
    smallest_ratio: float = 0.1
    save_seconds: float = 120.0
    check_seconds: float = 240.0
    bfloat16: bool = True
    device: str = "cpu"
    seed: int = 0


def read_codes(path: Path) -> list[np.ndarray]:
    """An int64 array per recording."""
    with np.load(path) as data:
        ends = np.cumsum(data["lengths"])[:-1]
        return np.split(data["codes"].astype(np.int64), ends)


def white_codebook(codebook: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Codebook in the principal axes of the codes, without those below 1e-4 of the variance,
    each with unit variance over the codes: (codes, axes)."""
    used = codebook[codes].astype(np.float64)
    _, scale, axes = np.linalg.svd(np.cov(used.T))
    live = scale > 1e-4 * scale.sum()
    return (codebook - used.mean(0)) @ axes[live].T / np.sqrt(scale[live])


def begin(codebook: np.ndarray, codes: np.ndarray, shape: MaskedShape) -> MaskedPrior:
    """A network that starts from the geometry of the codebook and the counts of the codes.

    Embeddings start as a linear map of the codebook's vectors. Output entries start with the
    coordinates and their products, so that a query can name any Gaussian over the vectors.
    """
    model = MaskedPrior(shape)
    white = white_codebook(codebook, codes[:: max(1, len(codes) // 60_000)])
    rows, columns = np.triu_indices(white.shape[1])
    pairs = white[:, rows] * white[:, columns]
    pairs = (pairs - pairs.mean(0)) / pairs.std(0)
    features = np.concatenate([white, pairs], axis=1)[:, : shape.query]
    counts = np.bincount(codes, minlength=shape.codebook_size) + 0.5
    with torch.no_grad():
        size = min(white.shape[1], shape.embedding)
        model.embedding[:-1, :size] += torch.from_numpy(white[:, :size])
        model.entries[:, : features.shape[1]] += torch.from_numpy(features)
        model.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return model


def crops(
    recordings: list[np.ndarray], options: Options, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Batches (crops, frames) of random crops; recordings by their number of frames."""
    sizes = np.array([len(codes) for codes in recordings])
    fitting = {n: np.flatnonzero(sizes >= n) for n in options.lengths}
    share = {n: sizes[kept] / sizes[kept].sum() for n, kept in fitting.items()}
    while True:
        length = int(rng.choice(options.lengths))
        count = max(1, options.batch_frames // length)
        chosen = rng.choice(fitting[length], count, p=share[length])
        starts = [int(rng.integers(0, sizes[i] - length + 1)) for i in chosen]
        rows = [recordings[i][start : start + length] for i, start in zip(chosen, starts)]
        yield torch.from_numpy(np.stack(rows))


def hide(shape: torch.Size, options: Options, rng: np.random.Generator) -> Tensor:
    """Which codes of a batch are hidden, bool (crops, frames), at least one in each crop."""
    count, frames = shape
    place = (np.arange(count) + rng.random()) / count  # stratified
    uniform = rng.permutation(place)[:, None]
    hidden = torch.from_numpy(rng.random((count, frames)) < uniform)
    for row in range(count // 2):
        burst = int(rng.choice(options.bursts))
        starts = torch.from_numpy(rng.random(frames + burst - 1) < 0.5 * place[2 * row] / burst)
        hidden[row] = F.max_pool1d(starts[None].float(), burst, 1)[0] > 0
    hidden[torch.arange(count), torch.from_numpy(rng.integers(0, frames, count))] = True
    return hidden


def loss_of(model: MaskedPrior, codes: Tensor, hidden: Tensor, options: Options) -> Tensor:
    """Weighted cross-entropy in nats per frame."""
    cost = F.cross_entropy(model(codes, hidden), codes[hidden], reduction="none")
    ratio = hidden.float().mean(1).clamp_min(options.smallest_ratio)
    weight = (1 / ratio)[:, None].expand(hidden.shape)[hidden]
    return (cost * weight).sum() / codes.numel()


@torch.no_grad()
def check(model: MaskedPrior, recordings: list[np.ndarray], codebook: Tensor) -> str:
    """Bits per hidden code and squared error of the expected vector, relative to linear
    interpolation, on held-out codes with 20 % hidden; and bits with all ratios."""
    rng = np.random.default_rng(0)
    bits, uniform, error, straight = [], [], 0.0, 0.0
    for codes in recordings:
        codes = torch.from_numpy(codes[:256])[None].to(model.bias.device)
        hidden = torch.from_numpy(rng.random(codes.shape) < 0.2).to(codes.device)
        hidden[0, 1] = True
        hidden[0, 0] = hidden[0, -1] = False
        logits = model(codes, hidden)
        bits.append(F.cross_entropy(logits, codes[hidden], reduction="none") / math.log(2))
        truth = codebook[codes[0]]
        error += (logits.softmax(1) @ codebook - truth[hidden[0]]).square().sum().item()
        known = np.flatnonzero(~hidden[0].cpu().numpy())
        lines = np.stack(
            [np.interp(np.arange(len(truth)), known, v) for v in truth.cpu().numpy()[known].T], 1
        )
        straight += np.square((lines - truth.cpu().numpy())[hidden[0].cpu().numpy()]).sum()
        hidden = torch.from_numpy(rng.random(codes.shape) < rng.random()).to(codes.device)
        if hidden.any():
            cost = F.cross_entropy(model(codes, hidden), codes[hidden], reduction="none")
            uniform.append(cost.mean() / math.log(2))
    return (
        f"held out: {torch.cat(bits).mean().item():.3f} bits at 20 %, squared error "
        f"{error / straight:.3f} of interpolation's; all ratios {torch.stack(uniform).mean():.3f}"
    )


def fit(train: Path, dev: Path, run: Path, options: Options, shape: MaskedShape) -> None:
    """Train, or resume from ``run/state.pt``."""
    torch.manual_seed(options.seed)
    run.mkdir(parents=True, exist_ok=True)
    recordings, held_out = read_codes(train), read_codes(dev)[::4]
    codebook = Codec.load(device="cpu").codebook()
    model = begin(codebook, np.concatenate(recordings), shape).to(options.device)
    table = torch.from_numpy(codebook).to(options.device)
    matrices = [p for p in model.parameters() if p.ndim == 2 and len(p) < shape.codebook_size]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(
            matrices, lr=options.muon_rate, weight_decay=0.01, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(others, lr=options.adam_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    step, spent = 0, 0.0
    state_path = run / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=options.device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
        print(f"resumed at step {step}", flush=True)
    rng = np.random.default_rng((options.seed, step))
    batches = crops(recordings, options, rng)
    began = time.monotonic() - spent

    def save() -> None:
        state = {"model": model.state_dict(), "shape": asdict(shape), "step": step}
        state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
        state["spent"] = time.monotonic() - began
        torch.save(state, run / "new.pt")
        (run / "new.pt").replace(state_path)

    saved = checked = time.monotonic()
    recent: list[float] = []
    frames = 0
    while (done := (time.monotonic() - began) / (60 * options.minutes)) < 1:
        rate = min(1.0, (step + 1) / 20, max(0.01, (1 - done) / 0.7))
        for optimizer, full in zip(optimizers, (options.muon_rate, options.adam_rate)):
            optimizer.param_groups[0]["lr"] = rate * full
        codes = next(batches).to(options.device)
        hidden = hide(codes.shape, options, rng).to(options.device)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bfloat16):
            loss = loss_of(model, codes, hidden, options)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        step, frames = step + 1, frames + codes.numel()
        recent.append(loss.item() / math.log(2))
        now = time.monotonic()
        if step in (10, 40) or now - checked > options.check_seconds:
            speed = frames / (now - checked)
            text = check(model, held_out, table)
            print(
                f"{(now - began) / 60:.1f} min, step {step}: {np.mean(recent):.3f} bits; {text}; "
                f"{speed:.0f} frames/s",
                flush=True,
            )
            checked, recent, frames = time.monotonic(), [], 0
        if now - saved > options.save_seconds:
            save()
            saved = time.monotonic()
    save()
    print(f"step {step}: {check(model, held_out, table)}")


def export(run: Path, out: Path, description: str) -> None:
    """Write the masked prior of a run."""
    state = torch.load(run / "state.pt", weights_only=True, map_location="cpu")
    model = MaskedPrior(MaskedShape(**state["shape"]))
    model.load_state_dict(state["model"])
    metadata = {"description": description, "licence": "MIT"}
    save_masked_prior(out, model, Codec.load(device="cpu").codes_id, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit")
    for name in ("train", "dev", "run"):
        fitting.add_argument(name, type=Path)
    fitting.add_argument("--minutes", type=float, default=60.0)
    exporting = commands.add_parser("export")
    for name in ("run", "out"):
        exporting.add_argument(name, type=Path)
    exporting.add_argument("--description", default="Transformer over codes of both sides")
    arguments = vars(parser.parse_args())
    torch.set_num_threads(1)
    if arguments.pop("command") == "export":
        export(**arguments)
        return
    options = Options(minutes=arguments.pop("minutes"))
    fit(**arguments, options=options, shape=MaskedShape())


if __name__ == "__main__":
    main()
