"""Scores of decoded speech at 16 kHz, by the packages that are installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

RATE = 16_000
Judge = Callable[[np.ndarray, np.ndarray], float]


def judges(names: Sequence[str]) -> dict[str, Judge]:
    """Functions of (reference, decoded), both float32 at 16 kHz: "stoi", "pesq_wb", "distillmos"
    (which ignores the reference) and "speaker" (the cosine of Resemblyzer's embeddings)."""
    makers = {"stoi": _stoi, "pesq_wb": _pesq, "distillmos": _distillmos, "speaker": _speaker}
    return {name: makers[name]() for name in names}


def _stoi() -> Judge:
    from pystoi import stoi

    return lambda reference, decoded: float(stoi(reference, decoded, RATE))


def _pesq() -> Judge:
    from pesq import PesqError, pesq

    return lambda reference, decoded: float(
        pesq(RATE, reference, decoded, "wb", on_error=PesqError.RETURN_VALUES)
    )


def _distillmos() -> Judge:
    from distillmos import ConvTransformerSQAModel

    model = ConvTransformerSQAModel().eval()

    def judge(_: np.ndarray, decoded: np.ndarray) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(np.ascontiguousarray(decoded))[None]))

    return judge


def _speaker() -> Judge:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from resemblyzer import VoiceEncoder, preprocess_wav
    voices = VoiceEncoder("cpu", verbose=False)

    def embedded(audio: np.ndarray) -> np.ndarray:
        vector: np.ndarray = voices.embed_utterance(preprocess_wav(audio, source_sr=RATE))
        return vector

    return lambda reference, decoded: float(embedded(reference) @ embedded(decoded))
