"""The unquantised steps that all rows of a seed share, trained once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError
from study.session import Networks, Session, open_speech
from study.setting import Setting

# Far beyond every run's steps: the quantisers start from crops of their own.
_FIRST_STATISTICS_STEP = 1_000_000


@dataclass(frozen=True)
class WarmUp:
    """What the unquantised steps left.

    Attributes:
        networks: encoder, decoder and the optimiser's moments, at ``Setting.unquantized_steps``.
        latents: (n, latent_dim) float32, at least ``Setting.start_latents`` of them.
        curve: mel loss by step, as (step, mel) means over ``Setting.log_every`` steps.
    """

    networks: Networks
    latents: Tensor
    curve: list[tuple[int, float]]


def warm_up_path(runs: Path, seed: int) -> Path:
    return runs / "warm-up" / f"seed-{seed}.pt"


def make_warm_up(runs: Path, setting: Setting, data: Path, seed: int, device: torch.device) -> Path:
    """Train the unquantised steps of a seed, unless they are there."""
    path = warm_up_path(runs, seed)
    if path.exists():
        return path
    networks = Networks.make(setting, seed, device)
    source = open_speech(data, setting, seed)
    session = Session(setting, networks, source, device, setting.steps)
    curve, losses = [], []
    for step in range(setting.unquantized_steps):
        losses.append(session.step(step).mel)
        if (step + 1) % setting.log_every == 0:
            curve.append((step + 1, torch.stack(losses).mean().item()))
            losses.clear()
    networks.eval()
    latents: list[Tensor] = []
    for number in range(-(-setting.start_latents // setting.frames_per_step)):
        batch = session.latents(_FIRST_STATISTICS_STEP + number)
        latents.append(batch.transpose(1, 2).flatten(0, 1).cpu())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(
            {
                "setting": setting.to_dict(),
                "encoder": networks.encoder.state_dict(),
                "decoder": networks.decoder.state_dict(),
                "optimizer": networks.optimizer.state_dict(),
                "latents": torch.cat(latents),
                "curve": curve,
            },
            temporary,
        )
    return path


def load_warm_up(path: Path, setting: Setting, seed: int, device: torch.device) -> WarmUp:
    """Read what ``make_warm_up`` wrote.

    Raises:
        ConfigError: it is missing or damaged, or was made with another setting.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; make it with train_row.py --warm-up") from error
    except Exception as error:
        raise ConfigError(f"{path} is damaged; delete it and run again") from error
    if state["setting"] != setting.to_dict():
        raise ConfigError(f"{path} was made with another setting; choose another --out")
    networks = Networks.make(setting, seed, device)
    networks.encoder.load_state_dict(state["encoder"])
    networks.decoder.load_state_dict(state["decoder"])
    networks.optimizer.load_state_dict(state["optimizer"])
    return WarmUp(networks, state["latents"], [tuple(point) for point in state["curve"]])
