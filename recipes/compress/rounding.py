"""Matrices rounded to whole numbers so that what a layer feeds loses least.

An error E of a weight (out, in) costs about tr(G E H E^T), where H is the second moment of the
layer's inputs and G that of the gradients at its outputs (the Kronecker form of the Hessian). With
H = U D U^T and U unit upper triangular, rounding in the order of inputs, where later inputs
make up for the error of earlier ones, costs step^2 / 12 times the trace of D, which for inputs that
depend on each other is far below that of H; the same holds for G and the outputs. Steps in inverse
proportion to the square roots of both D make all weights cost the same, which is the best for an
entropy coder.

Sources: Frantar et al., "GPTQ" (arXiv 2210.17323), for the inputs; Tseng et al., "Model-Preserving
Adaptive Rounding" (arXiv 2505.22988), for both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.compressed import UNITS_PER_OCTAVE, Steps

_DAMPING = 1e-4


def matrices(part: nn.Module) -> dict[str, nn.Module]:
    """Linear layers and convolutions that mix all channels, by name."""
    return {
        name: layer
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d) and layer.groups == 1)
    }


class Moments:
    """Second moments of the inputs of layers, and of the gradients at their outputs."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._layers = layers
        self.inputs: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    @contextmanager
    def watching(self):
        """Add up what passes forwards and backwards."""
        hooks = [
            layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()
        ]
        yield
        for hook in hooks:
            hook.remove()

    def _hook(self, name: str):
        def forward(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            self.add(name, given[0], output)

        return forward

    def add(self, name: str, given: Tensor, output: Tensor) -> None:
        """Count what goes into a layer, and the gradient at ``output`` (..., out)."""
        layer, x = self._layers[name], given.detach()
        if isinstance(layer, nn.Conv1d):
            x = F.pad(x, (layer.padding[0], layer.padding[0]))
            x = x.unfold(2, layer.kernel_size[0], 1).permute(0, 2, 1, 3)
        x = x.reshape(-1, layer.weight[0].numel()).double()
        self.inputs[name] = self.inputs.get(name, 0) + x.T @ x

        def backward(gradient: Tensor) -> None:
            y = gradient.detach().reshape(-1, gradient.shape[-1]).double()
            self.gradients[name] = self.gradients.get(name, 0) + y.T @ y

        output.register_hook(backward)


def encoder_moments(model: nn.Module, waveforms: Iterable[Tensor]) -> Moments:
    """Of the encoder, where the loss is how near a latent comes to taking its second-best entry.

    Args:
        waveforms: (1, samples) at the model's rate.
    """
    entries, half_norms = model.quantizer.codebook_and_norms()
    generator = torch.Generator().manual_seed(0)
    moments = Moments(matrices(model.encoder))
    model.encoder.requires_grad_(True)
    with moments.watching():
        for waveform in waveforms:
            latent = model.encoder(waveform)[0].T
            with torch.no_grad():
                best = (latent @ entries.T - half_norms).topk(2, dim=1).indices
                between = entries[best[:, 0]] - entries[best[:, 1]]
                between /= between.square().sum(dim=1, keepdim=True)
                # Random signs: sums over frames then add up their squares.
                between *= 2.0 * torch.randint(0, 2, (len(latent), 1), generator=generator) - 1
            (latent * between).sum().backward()
    model.encoder.requires_grad_(False)
    return moments


def decoder_moments(model: nn.Module, codes: Iterable[Tensor], rate: int) -> Moments:
    """Of the decoder, where the loss is the change of compressed spectra.

    Args:
        codes: (1, frames).
    """
    generator = torch.Generator().manual_seed(0)
    moments = Moments(matrices(model.decoder))
    model.decoder.requires_grad_(True)
    window = torch.hann_window(1024)
    hertz = torch.linspace(0, rate / 2, 513)
    # Bands of an auditory scale count the same.
    weights = (700 / (700 + hertz)).sqrt()[:, None, None]
    latents: list[Tensor] = []
    # The decoder computes its first convolution itself, to leave out taps.
    stack = model.decoder.stack.register_forward_pre_hook(
        lambda module, given: moments.add("embed", latents[-1], given[0])
    )
    with moments.watching():
        for each in codes:
            latents.append(model.quantizer.decode(each))
            waveform = model.decoder(latents[-1])[0]
            spectrum = torch.stft(waveform, 1024, 256, window=window, return_complex=True)
            magnitude = spectrum.abs().clamp(min=1e-3)
            parts = torch.view_as_real(spectrum) * (magnitude**-0.7)[..., None]
            parts = torch.cat([parts, 2 * magnitude[..., None] ** 0.3], dim=-1)
            noise = torch.randn(parts.shape, generator=generator)
            (parts * weights * noise).sum().backward()
    stack.remove()
    model.decoder.requires_grad_(False)
    return moments


def rounded(weight: Tensor, inputs: Tensor, gradients: Tensor, cost: float) -> Steps:
    """A weight as whole numbers.

    Args:
        weight: (out, ...).
        inputs, gradients: second moments.
        cost: of the rounding of one weight, times 12.
    """
    flat = weight.flatten(1).double().numpy()
    upper_h, h = _factors(inputs)
    upper_g, g = _factors(gradients)
    rows = _units(np.sqrt(cost / g))
    columns = _units(1 / np.sqrt(h))
    steps = Steps.step_sizes(rows, columns).astype(np.float64)
    out, into = flat.shape
    numbers = np.zeros(flat.shape, np.int32)
    # What rounding changed so far adds to entry (i, j), by inputs and by outputs.
    by_inputs, by_outputs = np.zeros_like(flat), np.zeros_like(flat)
    # Entries of an antidiagonal do not depend on each other.
    for diagonal in range(out + into - 1):
        i = np.arange(max(0, diagonal - into + 1), min(out, diagonal + 1))
        j = diagonal - i
        wanted = flat[i, j] - by_inputs[i, j] - by_outputs[i, j]
        whole = np.rint(wanted / steps[i, j])
        numbers[i, j] = whole
        error = whole * steps[i, j] - flat[i, j]
        mixed = error + by_inputs[i, j]
        by_inputs[i] += error[:, None] * upper_h[j]
        by_outputs[:, j] += mixed * upper_g[i].T
    return Steps(numbers, rows, columns, tuple(weight.shape))


def _factors(moment: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """U without its diagonal, and D, of moment = U D U^T."""
    damped = moment + _DAMPING * moment.diagonal().mean() * torch.eye(len(moment)).double()
    lower = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    diagonal = lower.diagonal()
    return torch.triu(lower / diagonal, 1).numpy(), diagonal.square().numpy()


def _units(sizes: np.ndarray) -> np.ndarray:
    return np.rint(UNITS_PER_OCTAVE * np.log2(sizes)).astype(np.int16)
