"""Quantisers: the bottleneck, chosen by the ``kind`` of its configuration.

``base.Quantizer`` is the interface that codec and trainer use. A new kind is a configuration in
``config.py``, a module here and a line in ``_KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simvq_audio.model.quantizers.base import Quantized, Quantizer
from simvq_audio.model.quantizers.factorised import FactorisedVQ
from simvq_audio.model.quantizers.fsq import FSQ
from simvq_audio.model.quantizers.package import PackageQuantizer
from simvq_audio.model.quantizers.residual import Residual
from simvq_audio.model.quantizers.simvq import SimVQ
from simvq_audio.model.quantizers.tables import VQ, EmaVQ

__all__ = ["Quantized", "Quantizer", "make_quantizer"]

_KINDS: dict[str, Callable[[Any], Quantizer]] = {
    "simvq": SimVQ,
    "vq": VQ,
    "ema": EmaVQ,
    "factorised": FactorisedVQ,
    "fsq": FSQ,
    "residual": lambda config: Residual(config, make_quantizer),
    "package": PackageQuantizer,
}


def make_quantizer(config: Any) -> Quantizer:
    """The quantiser that a configuration (see ``config.QuantizerConfig``) describes."""
    return _KINDS[config.kind](config)
