"""Speed of encoding and decoding, as ratios to real time.

    python recipes/benchmark.py [RECORDING] [--model MODEL] [--device cpu] [--threads 2]

Codes about a minute of audio (the recording repeated) several times after a warm-up, and prints the
median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from simvq_audio import Codec
from simvq_audio.audio import read_audio
from simvq_audio.errors import SimvqAudioError

HELLO = Path(__file__).parent.parent / "examples" / "hello.wav"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path, nargs="?", default=HELLO)
    parser.add_argument("--model", help="the embedded one by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        codec = Codec.load(args.model, device=args.device)
        waveform, rate = read_audio(args.recording)
    except SimvqAudioError as error:
        print(f"benchmark.py: error: {error}", file=sys.stderr)
        return 1
    waveform = np.tile(waveform[:1], -(-60 * rate // waveform.shape[1]))
    seconds = waveform.shape[1] / rate
    encoding, decoding = [], []
    for _ in range(args.runs + 1):
        start = time.perf_counter()
        codes = codec.encode(waveform, rate)
        middle = time.perf_counter()
        codec.decode(codes)
        encoding.append(middle - start)
        decoding.append(time.perf_counter() - middle)
    encode, decode = statistics.median(encoding[1:]), statistics.median(decoding[1:])
    print(f"{codec.name} {codec.model_id}, {args.device}, {args.threads} threads")
    for what, took in (("encode", encode), ("decode", decode), ("both", encode + decode)):
        print(f"{what:7} {seconds / took:6.1f} times real time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
