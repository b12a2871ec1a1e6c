"""Versions and machine, for reports."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from simvq_audio.evaluation.metric import Metric

# Packages that read, resample and code the recordings.
_ALWAYS = ("simvq-audio", "numpy", "soundfile", "soxr", "torch")


def package_versions(metrics: Sequence[type[Metric]]) -> dict[str, str]:
    """Versions of the packages that compute these metrics, by name, and of Python."""
    names = {*_ALWAYS}
    for metric in metrics:
        names.update(metric.packages)
        names.update(_distributions(metric))
    return {"python": platform.python_version()} | {
        name: version for name in sorted(names) if (version := _version(name)) is not None
    }


def machine_description() -> str:
    """Processor, cores, operating system."""
    cores = os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {cores} core{'s' * (cores > 1)}, {system}"


def _distributions(metric: type[Metric]) -> list[str]:
    """The installed distributions that a metric's class can come from."""
    package = metric.__module__.partition(".")[0]
    if package == "simvq_audio":
        return []
    return metadata.packages_distributions().get(package, [])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    # platform.processor() is often empty on Linux.
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
