"""The published architecture against numbers that the published code computed.

``published_4096.npz`` holds its input and outputs for weights that a rule fills, tensor by tensor,
from a seed and the tensor's published name.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.published_import import published, published_names

FIXTURE = Path(__file__).parents[1] / "data" / "published_4096.npz"
TOLERANCE = 1e-4


def fill(name: str, shape: list[int], seed: int) -> torch.Tensor:
    """The rule for every tensor but the window."""
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    x = generator.standard_normal(shape, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "weight_g" or (leaf == "weight" and len(shape) == 1):
        value = 1 + 0.1 * x
    elif leaf == "gamma":
        value = 0.1 + 0.02 * x
    elif len(shape) == 1:
        value = 0.02 * x
    else:
        value = x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    assert value.shape == reference.shape
    return ((value - reference).norm() / reference.norm()).item()


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    with np.load(FIXTURE) as arrays:
        names = ("audio", "latent", "codes", "quantized", "recon", "commitment")
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in names}


@pytest.fixture(scope="module")
def shapes() -> dict[str, list[int]]:
    """Every tensor of the published model, by its name there."""
    with np.load(FIXTURE) as arrays:
        return json.loads(str(arrays["keys"]))


@pytest.fixture(scope="module")
def model(shapes: dict[str, list[int]]) -> Iterator[Autoencoder]:
    with np.load(FIXTURE) as arrays:
        seed, codebook_size = int(arrays["seed"]), int(arrays["codebook_size"])
    config = published(codebook_size)
    names = published_names(config)
    state = {ours: fill(theirs, shapes[theirs], seed) for ours, theirs in names.items()}
    with torch.device("meta"):
        model = Autoencoder(config)
    model.to_empty(device="cpu")
    # The window is no parameter and not in the state.
    model.decoder.head.istft.window.copy_(torch.hann_window(config.decoder.n_fft))
    model.load_state_dict(state)
    del state
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield model.eval()
    torch.set_num_threads(threads)


def test_every_published_tensor_has_one_place(shapes, model):
    used = {name for name in shapes if not name.startswith("decoder.")} - {"head.istft.window"}
    names = published_names(model.config)
    assert sorted(names.values()) == sorted(used)
    for ours, tensor in model.state_dict().items():
        assert list(tensor.shape) == shapes[names[ours]], ours


def test_names_stay_apart_without_dots():
    # The moving average's names have none.
    dotless = [name.replace(".", "") for name in published_names(published()).values()]
    assert len(set(dotless)) == len(dotless)


def test_parameters_in_use(model):
    assert sum(p.numel() for p in model.parameters()) == 71_952_898


def test_latent_and_codes(model, reference):
    latent = model.encode_latent(reference["audio"][None])
    assert relative_error(latent[0], reference["latent"]) < TOLERANCE
    assert torch.equal(model.encode(reference["audio"][None])[0], reference["codes"])


def test_quantizer(model, reference):
    quantized = model.quantizer(reference["latent"][None])
    assert torch.equal(quantized.indices[0], reference["codes"])
    assert relative_error(quantized.latent[0], reference["quantized"]) < TOLERANCE
    loss = quantized.losses["codebook"] + 0.25 * quantized.losses["commitment"]
    assert loss.item() == pytest.approx(reference["commitment"].item(), rel=TOLERANCE)


def test_decoding_the_quantized_latent(model, reference):
    decoded = model.decode_latent(reference["quantized"][None])
    assert relative_error(decoded[0], reference["recon"]) < TOLERANCE


def test_decoding_the_codes(model, reference):
    decoded = model.decode(reference["codes"][None])
    assert relative_error(decoded[0], reference["recon"]) < TOLERANCE


def test_streamed_codes(model, reference):
    stream = model.encoder.stream()
    pieces = list(reference["audio"][None].split(2500, dim=-1))
    latents = [stream.push(piece, final=piece is pieces[-1]) for piece in pieces]
    latent = torch.cat(latents, dim=-1)
    assert relative_error(latent[0], reference["latent"]) < TOLERANCE
    assert torch.equal(model.quantizer.encode(latent)[0], reference["codes"])
