"""Codes drawn from a masked prior, in steps that each settle some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simvq_audio.errors import ConfigError
from simvq_audio.prior.masked.filling import WINDOW
from simvq_audio.prior.masked.network import MaskedPrior

ORDERS = ("confidence", "ancestral")
# Frames before a gap that a window begins with.
_PAST = 96
MAX_STEPS = 1024


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn.

    Attributes:
        order: "ancestral": the reverse process of absorbing-state diffusion, in which every hidden
            code is settled with the same probability in a step. "confidence": in each step the
            codes drawn with the highest probability are kept, with noise that fades, after
            MaskGIT (Chang et al., 2022).
        steps: for a window of 256 frames.
        temperature: of the distribution that codes are drawn from; 0 takes the most probable.
        noise: weight of the Gumbel noise in the order of confidence.

    Raises:
        ConfigError: a value is out of range.
    """

    order: str = "confidence"
    steps: int = 24
    temperature: float = 1.0
    noise: float = 4.0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"the order must be {' or '.join(ORDERS)}, not {self.order!r}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps must be 1 to {MAX_STEPS}, not {self.steps}")
        for name in ("temperature", "noise"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise ConfigError(f"{name} must be 0 to 100, not {value}")


def sample(
    prior: MaskedPrior, codes: np.ndarray, hidden: np.ndarray, how: Sampling, seed: int
) -> np.ndarray:
    """Draw the hidden codes of one recording, given the others.

    More than ``WINDOW`` frames are drawn from left to right, a window at a time.

    Args:
        codes: integers (frames,); any value where hidden.
        hidden: bool (frames,).
        seed: equal seeds give equal codes on one machine.

    Returns:
        int64 (frames,).
    """
    generator = torch.Generator().manual_seed(seed)
    codes, hidden = codes.astype(np.int64), hidden.copy()
    while hidden.any():
        start = max(0, int(hidden.argmax()) - _PAST)
        part = slice(start, start + WINDOW)
        codes[part] = _draw(prior, codes[part], hidden[part], how, generator)
        hidden[part] = False
    return codes


def _draw(
    prior: MaskedPrior,
    codes: np.ndarray,
    hidden: np.ndarray,
    how: Sampling,
    generator: torch.Generator,
) -> np.ndarray:
    """Draw the hidden codes of one window."""
    device = prior.bias.device
    current = torch.from_numpy(codes)[None].to(device)
    left = torch.from_numpy(hidden)[None].to(device)
    total = int(left.sum())
    steps = min(how.steps, total)
    for step in range(steps):
        with torch.inference_mode():
            logits = prior(current, left).cpu()
        drawn, confidence = _choose(logits, how.temperature, generator)
        remaining = len(drawn)
        if how.order == "ancestral":
            # Each is settled with probability 1 / (steps left).
            settled = torch.rand(remaining, generator=generator) < 1 / (steps - step)
        else:
            goal = int(total * np.cos(np.pi / 2 * (step + 1) / steps))
            keep = max(1, remaining - goal) if step + 1 < steps else remaining
            fade = how.noise * (1 - (step + 1) / steps)
            scored = confidence + fade * _gumbel(confidence.shape, generator)
            settled = torch.zeros(remaining, dtype=torch.bool)
            settled[scored.topk(min(keep, remaining)).indices] = True
        at = torch.nonzero(left[0])[:, 0][settled.to(device)]
        current[0, at] = drawn[settled].to(device)
        left[0, at] = False
        if not left.any():
            break
    return current[0].cpu().numpy()


def _choose(
    logits: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one code for each row; return it and its log probability."""
    scores = logits.log_softmax(1)
    noisy = scores + temperature * _gumbel(scores.shape, generator) if temperature else scores
    drawn = noisy.argmax(1)
    return drawn, scores.gather(1, drawn[:, None])[:, 0]


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))
