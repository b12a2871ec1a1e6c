"""A model with a nested codebook instead of its own."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.quantizers.base import TableQuantizer
from simvq_audio.model.quantizers.subset import Subset
from simvq_audio.nested import NestedBook


def with_book(model: Autoencoder, book: NestedBook) -> Autoencoder:
    """The same encoder and decoder with a nested codebook.

    Its configuration has the nested codebook's size, so that codes are checked against that.

    Raises:
        ConfigError: the model's codes have no codebook of this kind.
    """
    full = model.quantizer
    if not isinstance(full, TableQuantizer):
        raise ConfigError("this model has no nested codebooks; leave out the codebook size")
    entries = torch.from_numpy(book.entries).to(next(model.parameters()).device)
    other = copy.copy(model)
    other._modules = {**model._modules, "quantizer": Subset(full, entries).eval()}
    full_config: Any = model.config.quantizer
    quantizer = dataclasses.replace(full_config, codebook_size=book.size)
    other.config = dataclasses.replace(model.config, quantizer=quantizer)
    return other
