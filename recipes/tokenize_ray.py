"""Tokenise a folder of recordings with Ray Data, on as many machines and GPUs as the cluster has.

    pip install 'simvq-audio' 'ray[data]'
    python recipes/tokenize_ray.py recordings/ codes/ --workers 8 --gpus 1

Writes Parquet with ``path``, ``codes``, ``channels``, ``samples``, ``rate``, ``codes_id`` and
``error``. Where a worker dies, Ray starts another and gives it the batches again. A job that ends
as a whole begins from nothing; ``simvq-audio tokenize`` goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import ray

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.corpora import Tokenizer
from simvq_audio.folders import find_files


def tokenize(
    source: str,
    target: str,
    workers: int = 2,
    gpus: float = 0,
    model: str | None = None,
    batch_size: int = 64,
) -> None:
    """Code the recordings of a folder into a folder of Parquet files.

    Args:
        gpus: of each worker; below 1, workers share one.
        batch_size: recordings that a worker gets at a time.
    """
    found, _ = find_files(source, AUDIO_SUFFIXES)
    paths = ray.data.from_items(
        [{"path": os.path.abspath(path)} for path in found],
        # Blocks are what a dead worker's work is given on in.
        override_num_blocks=max(workers, -(-len(found) // batch_size)),
    )
    codes = paths.map_batches(
        Tokenizer,
        fn_constructor_kwargs={"model": model, "device": "cuda" if gpus else "cpu"},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=gpus or None,
    )
    codes.write_parquet(str(Path(target).absolute()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--model")
    tokenize(**vars(parser.parse_args()))
