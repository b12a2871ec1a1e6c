"""What weights in fewer bits cost: the table of docs/compression.md.

    python recipes/compress/table.py RECORDINGS OUT [--model compact-1] [--limit 20] [--half choose]

Writes OUT/table.md and OUT/results.json, a row for each variant, as it comes. What was measured is
kept, so that a stopped run continues. vectors.py has the variants; small.py writes a model by
better rounding.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from vectors import compressed, sampled_codes, variants

from simvq_audio.audio import read_audio, resample
from simvq_audio.codec.model_source import locate_model
from simvq_audio.evaluation.recordings import find_recordings
from simvq_audio.evaluation.registry import find_metrics
from simvq_audio.evaluation.trial import Trial
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model

METRICS = ("distillmos", "stoi", "speaker_similarity")
AS_IT_IS = "decoder as it is"
# What a small variant must keep, and how large its file may be.
MOST_LOSS, LEAST_SAME, MOST_BYTES = 0.05, 0.999, 7e6


class Judges:
    """Scores of a model on recordings, each coded once by the model as it was."""

    def __init__(self, model: Autoencoder, paths: list[str], rate: int) -> None:
        self._metrics = [metric() for metric in find_metrics(METRICS)]
        self._rate = rate
        self._items = []
        for path in paths:
            waveform, own_rate = read_audio(path)
            native = resample(waveform[:1], own_rate, rate)
            with torch.inference_mode():
                self._items.append((native, model.encode(torch.from_numpy(native))))

    def same_codes(self, model: Autoencoder) -> float:
        """Share of codes that are what they were."""
        same = total = 0
        for native, codes in self._items:
            with torch.inference_mode():
                same += int((model.encode(torch.from_numpy(native)) == codes).sum())
            total += codes.numel()
        return same / total

    def scores(self, model: Autoencoder) -> dict[str, float]:
        """Means over recordings, decoded from the codes of the model as it was."""
        values: dict[str, list[float]] = {name: [] for name in METRICS}
        for native, codes in self._items:
            with torch.inference_mode():
                decoded = model.decode(codes)[0, : native.shape[1]].numpy()
            trial = Trial(native[0], np.clip(decoded, -1, 1), self._rate)
            for metric in self._metrics:
                values[metric.name].append(metric.score(trial))
        return {name: mean(scores) for name, scores in values.items()}


def evenly(names: tuple[str, ...], limit: int) -> Iterator[str]:
    """As many names, evenly over all."""
    count = min(limit, len(names))
    yield from (names[i * len(names) // count] for i in range(count))


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as Markdown, and what follows for a small variant."""
    lines = [
        "| | MB of the part | codes that stay | DistillMOS | STOI | speaker similarity |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{row['bytes'] / 1e6:.2f}", f"{row['same']:.2%}" if "same" in row else "all"]
        cells += [f"{row[metric]:.3f}" if metric in row else "" for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", verdict(rows), ""])


def verdict(rows: dict[str, dict[str, float]]) -> str:
    """Whether a small variant keeps what it must."""
    encoders = {
        name: row["bytes"]
        for name, row in rows.items()
        if name.startswith("encoder") and row.get("same", 0.0) >= LEAST_SAME
    }
    if "distillmos" not in rows[AS_IT_IS]:
        return "No decoder was scored yet."
    best = rows[AS_IT_IS]["distillmos"]
    decoders = {
        name: row["bytes"]
        for name, row in rows.items()
        if row.get("distillmos", 0.0) >= best - MOST_LOSS
    }
    encoder = min(encoders, key=encoders.__getitem__, default="encoder as it is")
    decoder = min(decoders, key=decoders.__getitem__)
    total = rows[encoder]["bytes"] + rows[decoder]["bytes"] + rows["quantiser as it is"]["bytes"]
    return (
        f"The smallest that keeps {LEAST_SAME:.1%} of the codes and {MOST_LOSS} DistillMOS: "
        f"{encoder}, {decoder}, {total / 1e6:.2f} MB with the quantiser; "
        f"{'at most' if total <= MOST_BYTES else 'more than'} {MOST_BYTES / 1e6:.0f} MB."
    )


def main() -> None:
    """Measure every variant that was not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="compact-1")
    parser.add_argument("--half", choices=("choose", "report"), help="of the speakers")
    parser.add_argument("--within", default="", help="folders of RECORDINGS, with commas")
    parser.add_argument("--only", default="", help="variants whose names have this in them")
    parser.add_argument("--limit", type=int, default=20, help="recordings, evenly over all")
    arguments = parser.parse_args()
    model, header = load_model(locate_model(arguments.model))
    recordings = find_recordings(arguments.recordings)
    recordings = recordings.within([n for n in arguments.within.split(",") if n])
    recordings = recordings.half(arguments.half)
    paths = [recordings.path(name) for name in evenly(recordings.names, arguments.limit)]
    judges = Judges(model, paths, header.config.sample_rate)
    codes = sampled_codes(header.codes_id, header.config.quantizer.codebook_sizes[0])
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "results.json"
    measured = json.loads(kept.read_text()) if kept.exists() else {}
    rows: dict[str, dict[str, float]] = measured.get(header.model_id, {})
    for part in ("encoder", "quantizer", "decoder"):
        name = f"{part.replace('quantizer', 'quantiser')} as it is"
        if name not in rows:
            tensors = getattr(model, part).state_dict().values()
            rows[name] = {"bytes": 2 * sum(tensor.numel() for tensor in tensors)}
    for variant in variants():
        if variant.name in rows or arguments.only not in variant.name:
            continue
        if variant.part == "decoder" and "distillmos" not in rows[AS_IT_IS]:
            rows[AS_IT_IS] |= judges.scores(model)
        other, size = compressed(model, variant, codes)
        row = {"bytes": size}
        if variant.part == "encoder":
            row["same"] = judges.same_codes(other)
        else:
            row |= judges.scores(other)
        rows[variant.name] = row
        print(variant.name, row, flush=True)
        kept.write_text(json.dumps({**measured, header.model_id: rows}, indent=1))
        (arguments.out / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
