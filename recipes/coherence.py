"""Level that a decoder loses in its overlap-add, and the coherence of its phases, band by band.

    python recipes/coherence.py FOLDER [--model MODEL] [--limit N] [--device cpu]

For each band: the level of the inverse STFT head's spectra and that of the decoded waveform, both
against the original; their difference, lost in the overlap-add; and how well the phases advance
from frame to frame as in the original (1: equal, 0: random). See docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from simvq_audio.audio import read_audio, resample
from simvq_audio.codec.model_source import locate_model
from simvq_audio.device import find_device
from simvq_audio.evaluation.coherence import DEFAULT_EDGES, band_coherence
from simvq_audio.evaluation.recordings import Recordings, find_recordings
from simvq_audio.model.storage import load_model
from simvq_audio.training.script import positive, run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("coherence.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="recordings, with its subfolders")
    parser.add_argument("--model", help="a model file or a name; the embedded one by default")
    parser.add_argument("--limit", type=positive, help="only N recordings, spread evenly")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return run_script(parser, coherence, arguments)


def coherence(args: argparse.Namespace) -> None:
    recordings = find_recordings(args.folder).take(args.limit)
    model, header = load_model(locate_model(args.model), find_device(args.device))
    rate = header.config.sample_rate
    edges = [edge for edge in DEFAULT_EDGES if edge <= rate / 2]
    bands = band_coherence(model, _waveforms(recordings, rate), edges)
    print(f"{header.config.name} {header.model_id}, {len(recordings.names)} recordings")
    print("band, Hz       asked, dB  decoded, dB  lost, dB  phase advance")
    for band in bands:
        print(
            f"{f'{band.low:g} to {band.high:g}':<15}{band.asked:9.1f}{band.kept:13.1f}"
            f"{band.lost:10.1f}{band.phase_advance:15.2f}"
        )


def _waveforms(recordings: Recordings, rate: int) -> Iterator[np.ndarray]:
    for name in recordings.names:
        waveform, own_rate = read_audio(recordings.path(name))
        yield resample(waveform.mean(0, keepdims=True), own_rate, rate)[0]


if __name__ == "__main__":
    sys.exit(main())
