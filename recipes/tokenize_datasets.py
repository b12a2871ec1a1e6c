"""Add codes to a Hugging Face data set of speech.

    pip install simvq-audio datasets
    python recipes/tokenize_datasets.py recordings/ codes/              # a folder of recordings
    python recipes/tokenize_datasets.py openslr/librispeech_asr codes/ --split train.clean.100

The result is a data set on disk, for ``datasets.load_from_disk``: the columns of the original
without the audio, and ``codes``, ``channels``, ``samples``, ``rate``, ``codes_id`` and ``error``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Audio, Dataset, load_dataset

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.corpora import Tokenizer
from simvq_audio.folders import find_files


def tokenize(
    source: str, target: str, split: str = "train", column: str = "audio", model: str | None = None
) -> Dataset:
    """Code a data set, or a folder of recordings, and save it."""
    if Path(source).is_dir():
        found, _ = find_files(source, AUDIO_SUFFIXES)
        recordings = Dataset.from_dict({"path": [str(path) for path in found]})
        dropped = []
    else:
        recordings = load_dataset(source, split=split)
        if column != "audio":
            recordings = recordings.rename_column(column, "audio")
        # The bytes as they are: the codec reads and resamples on its own.
        recordings = recordings.cast_column("audio", Audio(decode=False))
        dropped = ["audio"]
    codes = recordings.map(Tokenizer(model), batched=True, batch_size=64, remove_columns=dropped)
    codes.save_to_disk(target)
    return codes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--split", default="train")
    parser.add_argument("--column", default="audio", help="that holds the audio")
    parser.add_argument("--model")
    tokenize(**vars(parser.parse_args()))
