"""The SEANet encoder: its padding, unequal batches, and streaming against the whole input."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch

from simvq_audio.model.config import SeanetEncoderConfig
from simvq_audio.model.seanet import CausalConv, SeanetEncoder


@pytest.fixture(scope="module")
def encoder() -> SeanetEncoder:
    """Small, with the published strides."""
    torch.manual_seed(0)
    return SeanetEncoder(SeanetEncoderConfig(filters=4), latent_dim=8).eval()


def waveform(samples: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(samples)
    return torch.randn(batch, samples, generator=generator)


def test_frames_cover_every_sample(encoder):
    assert encoder.hop_length == 320
    for samples in (0, 1, 319, 320, 321, 1000):
        latent = encoder(waveform(samples, batch=2))
        assert latent.shape == (2, 8, math.ceil(samples / 320))
        assert latent.isfinite().all()


@pytest.mark.parametrize(("kernel_size", "stride"), [(7, 1), (3, 1), (1, 1), (4, 2), (16, 8)])
def test_padding_reflects_an_input_without_repeating_its_ends(kernel_size, stride):
    conv = CausalConv(1, 1, kernel_size, stride)
    for length in range(kernel_size + 1, kernel_size + 2 * stride + 1):
        x = list(range(length))
        right = -length % stride
        left = x[1 : kernel_size - stride + 1][::-1]
        expected = left + x + x[-1 - right : -1][::-1] * (right > 0)
        padded = conv.pad(torch.tensor(x, dtype=torch.float32)[None, None, None])
        assert padded[0, 0, 0].tolist() == expected


def test_padding_of_an_input_shorter_than_itself_extends_it_by_zeros():
    # Worked out by hand from the published pad1d: 1 2 -> 1 2 0 0 0 0 0 -> six reflected samples in
    # front -> five cut from the end.
    padded = CausalConv(1, 1, 7).pad(torch.tensor([[[[1.0, 2.0]]]]))
    assert padded[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 2, 1, 2]
    # Kernel 8, stride 4: 1 -> 1 0 0 0 0 -> 0 0 0 0 | 1 0 0 0 0 | 0 0 0 -> four cut from the end.
    padded = CausalConv(1, 1, 8, 4).pad(torch.tensor([[[[1.0]]]]))
    assert padded[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_unequal_items_are_what_they_are_alone(encoder):
    lengths = torch.tensor([1000, 1, 0, 641, 640])
    batch = waveform(1000, batch=5)
    latent = encoder(batch, lengths)
    assert latent.shape == (5, 8, 4)
    for row, count in enumerate(lengths.tolist()):
        alone = encoder(batch[row : row + 1, :count])
        frames = alone.shape[-1]
        assert torch.equal(latent[row, :, :frames], alone[0])
        assert not latent[row, :, frames:].any()


def test_lengths_of_full_items_change_nothing(encoder):
    batch = waveform(700, batch=3)
    assert torch.equal(encoder(batch, torch.full((3,), 700)), encoder(batch))


def test_every_parameter_is_trained():
    encoder = SeanetEncoder(SeanetEncoderConfig(filters=4), latent_dim=8)
    encoder(waveform(2000, batch=2)).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_latent_leaves_autocast_in_float32(encoder):
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(waveform(700)).dtype == torch.float32


def stream_in_pieces(encoder: SeanetEncoder, x: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    stream = encoder.stream()
    edges = [0, *sorted(cuts), x.shape[-1]]
    pieces = []
    for index, (start, end) in enumerate(pairwise(edges)):
        # A buffer that is overwritten afterwards, as a reader's would be.
        buffer = x[:, start:end].clone()
        pieces.append(stream.push(buffer, final=index == len(edges) - 2))
        buffer.fill_(float("nan"))
    return torch.cat(pieces, dim=-1)


@pytest.mark.parametrize("seed", range(20))
def test_any_cutting_gives_the_whole(encoder, seed):
    draw = random.Random(seed)
    samples = draw.choice([draw.randrange(1, 700), draw.randrange(1, 9000)])
    x = waveform(samples, batch=draw.choice([1, 2]))
    # Cuts may coincide or lie at the ends: empty pushes, also the final one.
    cuts = [draw.randrange(samples + 1) for _ in range(draw.randrange(12))]
    cuts += draw.choice([[], [samples], [0, 0], [samples, samples]])
    streamed = stream_in_pieces(encoder, x, cuts)
    torch.testing.assert_close(streamed, encoder(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [*range(1, 20), 39, 40, 41, 318, 319, 320, 321, 640, 2241])
def test_tiny_inputs_in_one_and_in_single_samples(encoder, samples):
    x = waveform(samples)
    whole = encoder(x)
    torch.testing.assert_close(stream_in_pieces(encoder, x, []), whole, rtol=1e-4, atol=1e-6)
    cuts = list(range(1, samples)) if samples < 700 else list(range(7, samples, 7))
    torch.testing.assert_close(stream_in_pieces(encoder, x, cuts), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strides", [(1,), (3,), (2, 1, 5)])
@pytest.mark.parametrize("kernels", [(7, 7, 3), (1, 2, 1), (4, 1, 5)])
def test_other_shapes_stream_too(strides, kernels):
    torch.manual_seed(1)
    first, last, residual = kernels
    config = SeanetEncoderConfig(
        filters=2,
        strides=strides,
        kernel_size=first,
        last_kernel_size=last,
        residual_kernel_size=residual,
        lstm_layers=1,
    )
    encoder = SeanetEncoder(config, latent_dim=3)
    for samples in (1, 2, 5, 31, 64):
        x = waveform(samples)
        whole = encoder(x)
        assert whole.shape[-1] == math.ceil(samples / config.hop_length)
        for cuts in ([], list(range(samples)), [samples // 2, samples]):
            streamed = stream_in_pieces(encoder, x, cuts)
            torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-6)


def test_a_stream_of_nothing(encoder):
    stream = encoder.stream()
    assert stream.push(torch.zeros(2, 0)).shape == (2, 8, 0)
    assert stream.push(torch.zeros(2, 0), final=True).shape == (2, 8, 0)


def test_frames_come_out_as_soon_as_they_are_known(encoder):
    stream = encoder.stream()
    # The last layer's reflection needs seven frames; after that no frame waits.
    counts = [stream.push(waveform(320)).shape[-1] for _ in range(10)]
    assert counts == [0] * 6 + [7, 1, 1, 1]


def test_a_stream_keeps_no_gradient(encoder):
    assert encoder(waveform(640)).requires_grad
    assert not encoder.stream().push(waveform(640), final=True).requires_grad


def test_folded_weights_compute_the_same():
    torch.manual_seed(2)
    encoder = SeanetEncoder(SeanetEncoderConfig(filters=4), latent_dim=8).requires_grad_(False)
    x = waveform(3000, batch=2)
    before = encoder(x), stream_in_pieces(encoder, x, [5, 700])
    encoder.fold_weight_norm()
    assert not any("original" in name for name in encoder.state_dict())
    after = encoder(x), stream_in_pieces(encoder, x, [5, 700])
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
