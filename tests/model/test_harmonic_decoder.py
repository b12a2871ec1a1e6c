"""The harmonic decoder: exact excitation, and the same samples in pieces, batches and whole."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.model.config import HarmonicDecoderConfig
from simvq_audio.model.excitation import (
    FRAME_NUMBERS,
    PhaseCounter,
    extend,
    harmonic_pulses,
    numbered_noise,
)
from simvq_audio.model.harmonic_decoder import HarmonicDecoder
from simvq_audio.model.pitch import bridge_unvoiced, measure_pitch

HOP, RATE, LATENT = 40, 8000, 6
CONFIG = HarmonicDecoderConfig(
    dim=16,
    hidden_dim=24,
    blocks=2,
    kernel_size=3,
    n_fft=160,
    hop_length=HOP,
    harmonic_hz=3000.0,
    noise_bands=8,
    pitch_dim=8,
    pitch_blocks=1,
)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    made = HarmonicDecoder(CONFIG, LATENT, RATE).eval()
    for parameter in made.parameters():
        # Layers start so small that nothing would depend on the latent.
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def pitch_of(*shape, seed=0):
    """Octaves of random pitches from 90 to 350 Hz."""
    draw = torch.Generator().manual_seed(seed)
    return 6.5 + 1.95 * torch.rand(*shape, generator=draw)


def in_pieces(length, cuts):
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    return list(pairwise(edges))


@given(st.lists(st.integers(1, 49), max_size=6))
def test_phase_is_exactly_the_same_in_pieces(cuts):
    pitch = pitch_of(2, 50)
    counter = PhaseCounter(HOP, RATE)
    pieces = [counter.push(pitch[:, a:b]) for a, b in in_pieces(50, cuts)]
    assert torch.equal(torch.cat(pieces, dim=-1), PhaseCounter(HOP, RATE).push(pitch))


def test_phase_does_not_drift_over_an_hour():
    frames = 75 * 3600
    source = PhaseCounter(320, 24_000).push(torch.full((1, frames), math.log2(201.3)))
    cycles_a_frame = source[0, 0, 0].double() * 320 / 24_000
    error = source[0, 1].double() - torch.arange(frames) * cycles_a_frame
    assert (error - error.round()).abs().max() < 1e-4
    assert 0 <= source[0, 1].min() and source[0, 1].max() < 1


def test_pulses_are_the_sum_of_their_harmonics():
    source = PhaseCounter(HOP, RATE).push(pitch_of(2, 30))
    pulses = harmonic_pulses(source, HOP, RATE, 3000.0).double().view(2, 29, HOP)
    frequency, phase = source[:, 0].double(), source[:, 1].double()
    time = (torch.arange(HOP) + 0.5).double() / RATE
    for row in range(2):
        for frame in range(29):
            here, there = frequency[row, frame], frequency[row, frame + 1]
            slope = (there - here) * RATE / HOP
            cycles = phase[row, frame] + here * time + 0.5 * slope * time.square()
            count = int(3000.0 // max(here, there))
            wanted = sum(torch.cos(2 * math.pi * k * cycles) for k in range(1, count + 1))
            assert torch.allclose(pulses[row, frame], wanted, atol=2e-3 * count)


def test_pulses_run_on_from_frame_to_frame():
    """The end of every interval is the beginning of the next: no jump of phase between them."""
    source = PhaseCounter(HOP, RATE).push(pitch_of(1, 40))
    frequency, phase = source[0, 0].double(), source[0, 1].double()
    end = phase[:-1] + 0.5 * (frequency[:-1] + frequency[1:]) * HOP / RATE
    jump = end - phase[1:]
    assert (jump - jump.round()).abs().max() < 1e-6


def test_extended_source_is_what_holding_the_pitch_gives():
    pitch = pitch_of(1, 12)
    held = torch.cat([pitch, pitch[:, -1:].expand(-1, 3)], dim=1)
    longer = PhaseCounter(HOP, RATE).push(held)
    extended = extend(PhaseCounter(HOP, RATE).push(pitch), 3, HOP, RATE)[..., 3:]
    assert torch.equal(extended[:, [0, 2]], longer[:, [0, 2]])
    difference = extended[:, 1] - longer[:, 1]
    assert (difference - difference.round()).abs().max() < 1e-6


def test_noise_is_white_and_follows_from_the_frame_number():
    number = torch.arange(2000)[None].float()
    noise = numbered_noise(number, HOP)[0]
    assert abs(noise.mean()) < 0.02 and abs(noise.var() - 1) < 0.02
    for shift in (1, 2, HOP, 7 * HOP):
        assert abs((noise[shift:] * noise[:-shift]).mean()) < 0.02
    assert torch.equal(noise[5 * HOP : 9 * HOP], numbered_noise(number[:, 5:9], HOP)[0])
    last = numbered_noise(torch.tensor([[float(FRAME_NUMBERS - 1)]]), 320)
    assert last.abs().max() <= math.sqrt(3) + 1e-6


def test_a_steady_pitch_gives_steady_harmonics():
    """Gains of 1 let the pulses through: what frames overlap in does not cancel."""
    head = HarmonicDecoder(CONFIG, LATENT, RATE).head
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    head.out.bias.data[2 * head.bins :] = -30.0
    source = PhaseCounter(HOP, RATE).push(torch.full((1, 60), math.log2(200.0)))
    waveform = head(torch.zeros(1, 60, CONFIG.dim), source)[0, 10 * HOP : 50 * HOP]
    spectrum = torch.fft.rfft(waveform.double() * torch.hann_window(len(waveform)))
    level = spectrum.abs() / (len(waveform) / 4)
    harmonics = torch.arange(1, 14) * 200 * len(waveform) // RATE
    scale = CONFIG.n_fft / 4
    assert torch.allclose(level[harmonics] * scale, torch.ones(13).double(), rtol=0.02)
    level[torch.cat([harmonics + shift for shift in (-2, -1, 0, 1, 2)])] = 0
    assert (level[: harmonics[-1]] * scale).max() < 0.02


@settings(deadline=None)
@given(st.lists(st.integers(1, 89), max_size=5), st.integers(0, 10))
def test_pieces_give_the_samples_of_the_whole(decoder, cuts, seed):
    latent = torch.randn(2, LATENT, 90, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        whole = decoder(latent)
        stream = decoder.stream()
        pieces = [stream.push(latent[..., a:b]) for a, b in in_pieces(90, cuts)]
        pieces.append(stream.push(latent[..., :0], final=True))
    joined = torch.cat(pieces, dim=-1)
    assert joined.shape == whole.shape == (2, 90 * HOP)
    assert torch.allclose(joined, whole, atol=1e-5 * float(whole.abs().max()))


def test_frames_are_settled_as_soon_as_the_stream_says(decoder):
    stream = decoder.stream()
    ahead = stream.look_ahead_frames
    for frames in range(1, ahead + 4):
        settled = stream.push(torch.zeros(1, LATENT, 1)).shape[-1]
        assert settled == (HOP if frames > ahead else 0)


def test_a_batch_gives_the_samples_of_each_alone(decoder):
    lengths = torch.tensor([70, 1, 33])
    latent = torch.randn(3, LATENT, 70, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        batch = decoder(latent, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = decoder(latent[row : row + 1, :, :length])[0]
            scale = float(alone.abs().max())
            assert torch.allclose(batch[row, : length * HOP], alone, atol=1e-4 * scale)


def test_no_frames_give_no_samples(decoder):
    assert decoder(torch.zeros(2, LATENT, 0)).shape == (2, 0)
    assert decoder.stream().push(torch.zeros(2, LATENT, 0), final=True).shape == (2, 0)


def test_pitch_is_learnt_from_labels(decoder):
    """Cross entropy is least at the label, and the estimate lies within a few cents of it."""
    predictor = decoder.pitch
    pitch = torch.tensor([[math.log2(110.0), math.log2(231.0)]])
    scores = -0.5 * (48 * (predictor.centres - pitch[..., None])).square()
    right = predictor.loss(scores, pitch, torch.ones(1, 2))
    assert right < predictor.loss(scores, pitch + 0.1, torch.ones(1, 2))
    assert predictor.loss(scores, pitch + 0.1, torch.zeros(1, 2)) == 0


def test_measured_pitch_follows_a_glide_and_finds_no_voice_in_noise():
    pitch = torch.linspace(math.log2(80.0), math.log2(320.0), 150)[None]
    source = PhaseCounter(320, 24_000).push(pitch)
    pulses = harmonic_pulses(source, 320, 24_000, 4000.0) / 20
    noise = 0.1 * torch.randn(1, 100 * 320, generator=torch.Generator().manual_seed(0))
    # Pulses begin in the middle of the first frame.
    waveform = torch.cat([torch.zeros(1, 160), pulses, noise], dim=1)
    found, voiced = measure_pitch(waveform, 320, 24_000)
    inside = slice(6, 140)
    assert voiced[0, inside].all()
    cents = 1200 * (found[0, inside] - pitch[0, inside]).abs()
    assert cents.median() < 5 and cents.max() < 50
    assert voiced[0, 160:240].float().mean() < 0.1
    assert not measure_pitch(torch.zeros(2, 9600), 320, 24_000)[1].any()


def test_pitch_is_interpolated_where_there_is_no_voice():
    pitch = torch.tensor([[0.0, 7.0, 0.0, 0.0, 8.5, 0.0], [0.0] * 6])
    bridged, weight = bridge_unvoiced(pitch, pitch > 0)
    assert torch.allclose(bridged[0], torch.tensor([7.0, 7.0, 7.5, 8.0, 8.5, 8.5]))
    assert (weight[0, [1, 4]] == 1).all() and (weight[0, [0, 2, 3, 5]] < 1).all()
    assert not weight[1].any()
