"""Devices, precision and processes, by Lightning Fabric."""

from __future__ import annotations

import logging
import os

import torch

from simvq_audio.errors import ConfigError, MissingExtraError

_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}
DEVICES = ("auto", "cpu", "cuda", "mps")


def make_fabric(device: str, precision: str):  # -> lightning_fabric.Fabric
    """What carries a run: the device, autocast, and the process group.

    Lightning Fabric rather than accelerate: it leaves the loop, the optimisers and the gradients
    to us, which a step with two losses on one graph needs, and its package (``lightning-fabric``)
    brings nothing but torch's own dependencies. Several processes come from ``torchrun``, one a
    device; without it there is one process on one device.

    Args:
        device: "auto" (the first of CUDA, MPS and CPU that is there), "cpu", "cuda" or "mps".
        precision: see ``TrainingConfig``.

    Raises:
        ConfigError: the device is not there.
        MissingExtraError: lightning-fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError(
            "training needs lightning-fabric; install it with: pip install 'simvq-audio[train]'"
        ) from error
    # Its remarks on precision and strategy tell nothing that the configuration does not.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = _available(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if device == "cuda" and local > torch.cuda.device_count():
        raise ConfigError(
            f"{local} processes were started for {torch.cuda.device_count()} CUDA devices; start "
            "torchrun with --nproc-per-node of as many as there are"
        )
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    if world > 1:
        fabric.launch()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return fabric


def _available(device: str) -> str:
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if device not in there:
        raise ConfigError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    if not there[device]:
        raise ConfigError(
            f"there is no {device} device here (or torch was installed without it); "
            f"here are: {', '.join(name for name, is_there in there.items() if is_there)}"
        )
    return device
