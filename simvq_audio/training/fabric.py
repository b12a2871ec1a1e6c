"""Devices, precision and processes, by Lightning Fabric."""

from __future__ import annotations

import logging
import os

import torch

from simvq_audio.device import find_device
from simvq_audio.errors import ConfigError, needs_extra

_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(device: str, precision: str):  # -> lightning_fabric.Fabric
    """The device, autocast and the process group of a run.

    Lightning Fabric leaves the loop, the optimisers and the gradients to us, which a step with two
    losses on one graph needs. ``torchrun`` starts several processes, one per device; without it
    there is one process on one device.

    Args:
        device: as for ``find_device``; one of several CUDA devices ("cuda:1") for one process only.
        precision: see ``TrainingConfig``.

    Raises:
        ConfigError: the device is not there.
        MissingExtraError: lightning-fabric is not installed.
    """
    with needs_extra("train"):
        from lightning_fabric import Fabric
    # Its messages on precision and strategy repeat the configuration.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    place = find_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if place.type == "cuda" and local > torch.cuda.device_count():
        raise ConfigError(
            f"{local} processes were started for {torch.cuda.device_count()} CUDA devices; start "
            "torchrun with --nproc-per-node of as many as there are"
        )
    fabric = Fabric(
        accelerator=place.type,
        devices=local if place.index is None else [place.index],
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    if world > 1:
        fabric.launch()
    if place.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return fabric
