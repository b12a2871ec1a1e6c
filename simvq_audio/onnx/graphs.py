"""Encoder and decoder as ONNX graphs, from the tensors of a model file.

The arithmetic is that of ``simvq_audio.model``, which stays the reference: every export is compared
with it. Transforms between waveform and spectrum are matrix products, since many runtimes lack the
operators for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from simvq_audio.onnx.protobuf import Graph

Tensors = Mapping[str, np.ndarray]

# As in simvq_audio/model: FramedIstft, IstftHead, SpectralEncoder, ConvNeXtStack.
_LEAST_ENVELOPE = 1e-11
MAX_MAGNITUDE = 100.0
_LEAST_MAGNITUDE = 1e-5
_NORM_EPSILON = 1e-6


class Stft:
    """A Hann-windowed Fourier transform as sums of products; see ``FramedStft``.

    Args:
        n_fft: window in samples.
        hop_length: samples per frame.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = (n_fft - hop_length) // 2
        angles = 2 * math.pi * np.arange(n_fft) / n_fft
        self._cosines, self._sines = np.cos(angles), np.sin(angles)
        self.window = 0.5 - 0.5 * self._cosines

    def products(self, graph: Graph, bins: int) -> tuple[str, str]:
        """Cosines and sines (bins, n_fft) of a transform of ``bins`` bins.

        They are looked up when a runtime loads the graph, in a period of each, so that the file
        need not hold megabytes of them.
        """
        bin_numbers = graph.constant(np.arange(bins)[:, np.newaxis])
        product = graph("Mul", bin_numbers, graph.constant(np.arange(self.n_fft)[np.newaxis]))
        angle = graph("Mod", product, graph.constant(self.n_fft))
        return tuple(  # type: ignore[return-value]
            graph("Gather", graph.constant(period.astype(np.float32)), angle)
            for period in (self._cosines, self._sines)
        )

    def forward(self, graph: Graph, waveform: str, bins: int) -> tuple[str, str]:
        """(batch, 1, samples), padded -> real and imaginary parts, (batch, frames, bins) each."""
        cosines, sines = self.products(graph, bins)
        kernel = graph("Concat", cosines, graph("Neg", sines), axis=0)
        kernel = graph("Mul", kernel, graph.constant(self.window.astype(np.float32)))
        kernel = graph("Unsqueeze", kernel, graph.constant([1]))
        both = graph("Conv", waveform, kernel, strides=[self.hop_length])
        both = graph("Transpose", both, perm=[0, 2, 1])
        real, imaginary = graph.several("Split", 2, both, graph.constant([bins, bins]), axis=2)
        return real, imaginary

    def inverse(self, graph: Graph, real: str, imaginary: str, frames: str) -> str:
        """Real and imaginary parts (batch, frames, n_fft / 2 + 1) -> (batch, frames * hop_length).

        Args:
            frames: their number, a tensor of one element.
        """
        bins = self.n_fft // 2 + 1
        cosines, sines = self.products(graph, bins)
        # Every bin except the first and the last stands for two bins of the full transform.
        shares = np.full((bins, 1), 2 / self.n_fft, np.float32)
        shares[[0, -1]] /= 2
        kernel = graph("Concat", cosines, graph("Neg", sines), axis=0)
        kernel = graph("Mul", kernel, graph.constant(np.concatenate([shares, shares])))
        kernel = graph("Mul", kernel, graph.constant(self.window.astype(np.float32)))
        kernel = graph("Unsqueeze", kernel, graph.constant([1]))
        spectrum = graph("Concat", real, imaginary, axis=2)
        spectrum = graph("Transpose", spectrum, perm=[0, 2, 1])
        added = graph("ConvTranspose", spectrum, kernel, strides=[self.hop_length])
        ones = graph("Expand", graph.constant(np.ones((1, 1, 1), np.float32)), frames)
        squares = graph.constant((self.window**2).astype(np.float32)[np.newaxis, np.newaxis])
        envelope = graph("ConvTranspose", ones, squares, strides=[self.hop_length])
        envelope = graph("Max", envelope, graph.constant(_LEAST_ENVELOPE))
        samples = graph("Div", added, envelope)
        end = graph("Mul", frames, graph.constant([self.hop_length]))
        end = graph("Add", end, graph.constant([self.padding]))
        return graph("Squeeze", graph.slice(samples, 2, self.padding, end), graph.constant([1]))


def encoder_graph(config: Mapping[str, Any], tensors: Tensors, codebook: np.ndarray) -> Graph:
    """waveform (batch, samples) float32 at the model's rate -> codes (batch, frames) int64.

    A second output, ``scores`` (batch, frames, codes), says how near every code is, for searches
    among codes that cost fewer bits: a squared distance is the same for all less twice the score.

    Args:
        config: of the whole model, with an encoder of the kind "spectral".
        tensors: of the model file.
        codebook: (codes, latent_dim) float32.
    """
    settings = config["encoder"]
    n_fft, hop = settings["n_fft"], settings["hop_length"]
    bins = settings.get("bins") or n_fft // 2 + 1
    graph = Graph("encoder")
    waveform = graph.input("waveform", np.float32, ["batch", "samples"])
    stft = Stft(n_fft, hop)
    missing = graph("Mod", graph("Neg", graph.size(waveform, 1)), graph.constant([hop]))
    after = graph("Add", missing, graph.constant([stft.padding]))
    before = graph.constant([0, stft.padding, 0])
    padded = graph("Pad", waveform, graph("Concat", before, after, axis=0))
    padded = graph("Unsqueeze", padded, graph.constant([1]))
    real, imaginary = stft.forward(graph, padded, bins)
    squares = graph("Add", graph("Mul", real, real), graph("Mul", imaginary, imaginary))
    magnitude = graph("Max", graph("Sqrt", squares), graph.constant(_LEAST_MAGNITUDE))
    compressed = graph("Pow", magnitude, graph.constant(float(settings["compression"])))
    scale = graph("Div", compressed, magnitude)
    parts = [compressed, graph("Mul", real, scale), graph("Mul", imaginary, scale)]
    x = linear(graph, tensors, "encoder.embed", graph("Concat", *parts, axis=2))
    x = linear(graph, tensors, "encoder.out", convnext_stack(graph, tensors, "encoder.stack", x))
    # The nearest entry has the largest product with the latent minus half its squared norm; among
    # equals the first wins, as in simvq_audio.model.
    scores = graph("MatMul", x, graph.constant(np.ascontiguousarray(codebook.T)))
    half_norms = 0.5 * (codebook.astype(np.float64) ** 2).sum(axis=1)
    scores = graph("Sub", scores, graph.constant(half_norms.astype(np.float32)))
    codes = graph("ArgMax", scores, axis=2, keepdims=0)
    graph.output("codes", codes, np.int64, ["batch", "frames"])
    graph.output("scores", scores, np.float32, ["batch", "frames", len(codebook)])
    return graph


def vocos_graph(config: Mapping[str, Any], tensors: Tensors, codebook: np.ndarray) -> Graph:
    """codes (batch, frames) int64 -> waveform (batch, frames * hop_length) float32.

    Args:
        config: of the whole model, with a decoder of the kind "vocos" without attention.
        tensors: of the model file.
        codebook: (codes, latent_dim) float32.
    """
    settings = config["decoder"]
    n_fft, hop = settings["n_fft"], settings["hop_length"]
    graph = Graph("decoder")
    codes = graph.input("codes", np.int64, ["batch", "frames"])
    latent = graph("Gather", graph.constant(codebook), codes)
    x = embed_latent(graph, tensors, "decoder.embed", latent)
    x = convnext_stack(graph, tensors, "decoder.stack", x)
    x = linear(graph, tensors, "decoder.head.out", x)
    bins = n_fft // 2 + 1
    log_magnitude, phase = graph.several("Split", 2, x, graph.constant([bins, bins]), axis=2)
    magnitude = graph("Min", graph("Exp", log_magnitude), graph.constant(MAX_MAGNITUDE))
    real = graph("Mul", magnitude, graph("Cos", phase))
    imaginary = graph("Mul", magnitude, graph("Sin", phase))
    waveform = Stft(n_fft, hop).inverse(graph, real, imaginary, graph.size(codes, 1))
    graph.output("waveform", waveform, np.float32, ["batch", "samples"])
    return graph


def embed_latent(graph: Graph, tensors: Tensors, name: str, latent: str) -> str:
    """A convolution over frames, (batch, frames, latent_dim) -> (batch, frames, dim)."""
    weight = tensors[f"{name}.weight"]
    side = weight.shape[2] // 2
    x = graph("Transpose", latent, perm=[0, 2, 1])
    bias = graph.weight(tensors[f"{name}.bias"])
    x = graph("Conv", x, graph.weight(weight), bias, pads=[side, side])
    return graph("Transpose", x, perm=[0, 2, 1])


def convnext_stack(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    """``ConvNeXtStack``: (batch, frames, dim) -> the same."""
    x = layer_norm(graph, tensors, f"{name}.norm", x)
    block = 0
    while f"{name}.convnext.{block}.gamma" in tensors:
        x = _convnext_block(graph, tensors, f"{name}.convnext.{block}", x)
        block += 1
    return layer_norm(graph, tensors, f"{name}.final_layer_norm", x)


def layer_norm(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    """Over the last axis."""
    scale, bias = (graph.weight(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
    return graph("LayerNormalization", x, scale, bias, axis=-1, epsilon=_NORM_EPSILON)


def linear(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    """A linear layer over the last axis."""
    y = graph("MatMul", x, graph.weight(np.ascontiguousarray(tensors[f"{name}.weight"].T)))
    bias = tensors.get(f"{name}.bias")
    return y if bias is None else graph("Add", y, graph.weight(bias))


def _convnext_block(graph: Graph, tensors: Tensors, name: str, x: str) -> str:
    weight = tensors[f"{name}.dwconv.weight"]
    side = weight.shape[2] // 2
    y = graph("Transpose", x, perm=[0, 2, 1])
    bias = graph.weight(tensors[f"{name}.dwconv.bias"])
    y = graph("Conv", y, graph.weight(weight), bias, pads=[side, side], group=len(weight))
    y = layer_norm(graph, tensors, f"{name}.norm", graph("Transpose", y, perm=[0, 2, 1]))
    y = gelu(graph, linear(graph, tensors, f"{name}.pwconv1", y))
    y = linear(graph, tensors, f"{name}.pwconv2", y)
    return graph("Add", x, graph("Mul", y, graph.weight(tensors[f"{name}.gamma"])))


def gelu(graph: Graph, x: str) -> str:
    """The exact GELU, in operators that runtimes fuse."""
    erf = graph("Erf", graph("Div", x, graph.constant(math.sqrt(2))))
    y = graph("Mul", x, graph("Add", erf, graph.constant(1.0)))
    return graph("Mul", y, graph.constant(0.5))
