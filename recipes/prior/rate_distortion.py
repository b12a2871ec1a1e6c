"""Rate and distortion: coded bit rate against scores, over a folder of speech.

    python recipes/prior/rate_distortion.py RECORDINGS OUT.json [--weights 0,20,40] [--every 4]

For each weight of the search for cheaper codes: bits per frame, kbit/s of the payload, and STOI,
PESQ-wb, DistillMOS and speaker similarity (each where its package is installed), all at 16 kHz.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
import torch

from simvq_audio.audio import AUDIO_SUFFIXES, resample
from simvq_audio.codec import Codec
from simvq_audio.codec.cheaper import Cheaper
from simvq_audio.prior import prior_for_codes

RATE = 16_000


def scorers() -> dict:
    """Name -> function of (reference, decoded), both float32 at 16 kHz."""
    found = {}
    from pesq import pesq
    from pystoi import stoi

    found["stoi"] = lambda a, b: stoi(a, b, RATE)
    found["pesq_wb"] = lambda a, b: pesq(RATE, a, b, "wb")
    try:
        from distillmos import ConvTransformerSQAModel

        judge = ConvTransformerSQAModel().eval()

        def distillmos(_: np.ndarray, decoded: np.ndarray) -> float:
            with torch.inference_mode():
                return float(judge(torch.from_numpy(decoded)[None]))

        found["distillmos"] = distillmos
    except ImportError:
        pass
    try:
        from resemblyzer import VoiceEncoder, preprocess_wav

        voices = VoiceEncoder("cpu", verbose=False)

        def speaker(reference: np.ndarray, decoded: np.ndarray) -> float:
            one, two = (
                voices.embed_utterance(preprocess_wav(x, source_sr=RATE))
                for x in (reference, decoded)
            )
            return float(one @ two)

        found["speaker"] = speaker
    except ImportError:
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="0,10,20,40,80,160,320")
    parser.add_argument("--every", type=int, default=1, help="use every n-th recording")
    arguments = parser.parse_args()
    codec = Codec.load(device="cpu")
    prior = prior_for_codes(codec.codes_id)
    paths = sorted(p for p in arguments.recordings.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    items = []
    for path in paths[:: arguments.every]:
        audio, rate = soundfile.read(path, dtype="float32")
        encoder = codec._encoder(rate, 1, wait=True, keep_latents=True)
        codes = codec._encode_all(encoder, [audio[None]])
        latents = np.concatenate(encoder.latents, axis=2)
        items.append((codes, latents, resample(audio[None], rate, RATE)[0]))
    scores, cheaper = scorers(), Cheaper(codec.codebook(), prior, kbps=1.0)
    rows = []
    for weight in map(float, arguments.weights.split(",")):
        size = frames = seconds = 0.0
        values: dict[str, list[float]] = {name: [] for name in scores}
        for codes, z, wide in items:
            codes = replace(codes, indices=cheaper.at_weight(z, weight))
            size += len(codes.to_bytes())
            frames, seconds = frames + codes.num_frames, seconds + codes.duration
            decoded = codec.decode(codes, native_rate=True).numpy()
            decoded = resample(decoded, codec.sample_rate, RATE)[0][: len(wide)]
            decoded = np.pad(decoded, (0, len(wide) - len(decoded)))
            for name, score in scores.items():
                values[name].append(score(wide, decoded))
        payload = size - 32 * len(items)
        row = {
            "weight": weight,
            "bits_per_frame": 8 * payload / frames,
            "coded_kbps": 8 * payload / seconds / 1000,
            "file_kbps": 8 * size / seconds / 1000,
            **{name: mean(found_scores) for name, found_scores in values.items()},
        }
        rows.append(row)
        print("  ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
        arguments.out.write_text(json.dumps({"files": len(items), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
