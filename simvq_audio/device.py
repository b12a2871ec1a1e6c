"""Where a model runs."""

from __future__ import annotations

import torch

from simvq_audio.errors import ConfigError


def find_device(device: str | torch.device) -> torch.device:
    """The device of this name: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda:1", "mps".

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            f"unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps"
        ) from error
    if place.type == "cuda":
        count = torch.cuda.device_count()
        if (place.index or 0) >= count:
            raise ConfigError(f"there is no {place}: this machine has {count} CUDA devices")
    elif place.type == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("there is no MPS device on this machine")
    elif place.type != "cpu":
        raise ConfigError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps")
    return place
