"""A decoder whose harmonics run on from frame to frame: source and filter, both in the STFT.

An inverse STFT head that predicts every frame's phase lets neighbouring frames drift apart, and
what they overlap in cancels. Here phase comes from pitch, which is summed over time; the network
shapes pulses and noise by filters that change slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from simvq_audio.model.backbone import ConvNeXtStack, frame_mask, init_vocos
from simvq_audio.model.config import HarmonicDecoderConfig
from simvq_audio.model.excitation import (
    FRAME_NUMBERS,
    PhaseCounter,
    extend,
    harmonic_pulses,
    numbered_noise,
)
from simvq_audio.model.frames import MAX_MAGNITUDE, FramedIstft
from simvq_audio.model.pitch import PitchPredictor, bridge_unvoiced, measure_pitch
from simvq_audio.model.streaming import Stream, WindowedStream

# Pitch enters the network as sines and cosines of its octave at these multiples.
_PITCH_SCALES = tuple(2.0**power for power in range(-2, 6))
# Glasberg and Moore's scale of equivalent rectangular bandwidths, in 1/Hz.
_ERB = 0.00437


class HarmonicHead(nn.Module):
    """Pulses through a filter for each bin, plus noise through a filter with smooth bands.

    Harmonics end at ``harmonic_hz``; above there is noise alone, in bands, so that no bin can
    stand out as a tone.

    Source: the harmonic-plus-noise vocoder of Liu et al., "Neural Homomorphic Vocoder"
    (Interspeech 2020), with filters as complex STFT gains and Vocos' inverse STFT.
    """

    spread: Tensor

    def __init__(self, config: HarmonicDecoderConfig, sample_rate: int) -> None:
        super().__init__()
        n_fft = config.n_fft
        self.sample_rate = sample_rate
        self.harmonic_hz = config.harmonic_hz
        self.bins = int(config.harmonic_hz * n_fft / sample_rate) + 1
        self.out = nn.Linear(config.dim, 2 * self.bins + config.noise_bands)
        self.istft = FramedIstft(n_fft, config.hop_length)
        self.context_frames = self.istft.context_frames
        self.register_buffer("spread", _band_shapes(config.noise_bands, n_fft, sample_rate), False)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames * hop_length) waveform.

        Args:
            source: (batch, 3, frames) as ``PhaseCounter`` gives it.
            mask: (batch, frames, 1), 0 beyond an item's end.
        """
        # In half precision the phase would be good to a few degrees only.
        with torch.autocast(x.device.type, enabled=False):
            pulses, noise = self._excitation(source)
            sizes = [self.bins, self.bins, len(self.spread)]
            log_gain, phase, log_noise = self.out(x.float()).split(sizes, dim=-1)
            spectrum = (log_noise @ self.spread).exp().clamp(max=MAX_MAGNITUDE) * noise
            harmonic = torch.polar(log_gain.exp().clamp(max=MAX_MAGNITUDE), phase) * pulses
            below, above = spectrum.tensor_split([self.bins], dim=-1)
            return self.istft(torch.cat([below + harmonic, above], dim=-1), mask)

    def _excitation(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra of pulses (batch, frames, bins) and noise (batch, frames, n_fft / 2 + 1).

        A harmonic that falls on a bin has magnitude 1 there; noise has a mean square of 1.
        """
        istft, frames = self.istft, source.shape[-1]
        hop, n_fft = istft.hop_length, istft.n_fft
        # Pulses run from middle to middle, so they need a frame more at either end than noise.
        margin = istft.context_frames + 1
        wide = extend(source, margin, hop, self.sample_rate)
        pulses = harmonic_pulses(wide, hop, self.sample_rate, self.harmonic_hz) / (n_fft / 4)
        noise = numbered_noise(wide[:, 2], hop) / istft.window.square().sum().sqrt()
        length = (frames - 1) * hop + n_fft
        first = margin * hop - istft.padding
        noise = noise[:, first : first + length]
        first -= hop // 2
        pulses = pulses[:, first : first + length]
        of_pulses, of_noise = (
            torch.fft.rfft(x.unfold(-1, n_fft, hop) * istft.window) for x in (pulses, noise)
        )
        return of_pulses[..., : self.bins], of_noise


class HarmonicDecoder(nn.Module):
    """Latent -> pitch -> phase; latent and pitch -> ConvNeXt stack -> ``HarmonicHead``.

    Training gives ``render`` the measured pitch where there is one, so that harmonics lie on the
    original's and losses on single bins can hear them.
    """

    def __init__(self, config: HarmonicDecoderConfig, latent_dim: int, sample_rate: int) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        self.sample_rate = sample_rate
        kernel = config.kernel_size
        self.embed = nn.Conv1d(latent_dim, config.dim, kernel, padding=kernel // 2)
        self.pitch_embed = nn.Linear(2 * len(_PITCH_SCALES), config.dim, bias=False)
        self.stack = ConvNeXtStack(config.dim, config.hidden_dim, config.blocks, kernel)
        self.head = HarmonicHead(config, sample_rate)
        for part in (self.embed, self.stack, self.head):
            part.apply(init_vocos)
        nn.init.zeros_(self.pitch_embed.weight)
        self.pitch = PitchPredictor(latent_dim, config.pitch_dim, config.pitch_blocks, kernel)
        self._render_frames = kernel // 2 + self.stack.context_frames + self.head.context_frames
        self.context_frames = self._render_frames + self.pitch.context_frames

    def forward(self, latent: Tensor, frames: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> (batch, frames * hop_length) waveform.

        Args:
            frames: (batch,) frame counts of items that are shorter than the batch; each item's
                samples are then what they would be alone, and what follows its end is undefined.
        """
        mask = None if frames is None else frame_mask(frames, latent.shape[-1])
        pitch = self.predict_pitch(latent, mask)
        if frames is not None:
            # The last pitch is held, as it is beyond the end of an item that is decoded alone.
            last = pitch.gather(1, (frames[:, None] - 1).clamp(min=0))
            pitch = torch.where(mask[..., 0] > 0, pitch, last)
        return self.render(latent, self.phase_counter().push(pitch), mask)

    def training_pass(self, latent: Tensor, original: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode for training, by the pitch of the original.

        Args:
            latent: (batch, latent_dim, frames).
            original: (batch, samples) that the latent stands for.

        Returns:
            (batch, frames * hop_length) waveform, and the loss ``pitch`` of the predictor, whose
            gradient reaches nothing else.
        """
        with torch.autocast(latent.device.type, enabled=False):
            pitch, voiced = measure_pitch(original, self.hop_length, self.sample_rate)
            scores = self.pitch.scores(latent.detach().float())
            loss = self.pitch.loss(scores, *bridge_unvoiced(pitch, voiced))
            pitch = torch.where(voiced, pitch, self.pitch.estimate(scores))
            frequency, phase, number = self.phase_counter().push(pitch).unbind(1)
        # A crop begins at any phase, and noise must not be learnt by heart.
        batch = len(pitch), 1
        phase = (phase + torch.rand(batch, device=phase.device)) % 1
        number = (number + torch.randint(FRAME_NUMBERS, batch, device=phase.device)) % FRAME_NUMBERS
        source = torch.stack([frequency, phase, number], dim=1)
        return self.render(latent, source), {"pitch": loss}

    @torch.no_grad()
    def predict_pitch(self, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames) -> (batch, frames), octaves above 1 Hz.

        In float64, where the device has it: rounding differs between a piece and the whole, and
        phase adds it up from the start of a recording to its end.
        """
        dtype = torch.float32 if latent.device.type == "mps" else torch.float64
        weights = {name: value.to(dtype) for name, value in self.pitch.state_dict().items()}
        weights["centres"] = self.pitch.centres.to(dtype)
        with torch.autocast(latent.device.type, enabled=False):
            mask = None if mask is None else mask.to(dtype)
            return functional_call(self.pitch, weights, (latent.to(dtype), mask))

    def phase_counter(self) -> PhaseCounter:
        """A counter at the start of a recording; it makes ``source`` of pitch."""
        return PhaseCounter(self.hop_length, self.sample_rate)

    def render(self, latent: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, latent_dim, frames), (batch, 3, frames) -> (batch, frames * hop_length)."""
        if latent.shape[-1] == 0:
            return latent.new_zeros(latent.shape[0], 0)
        if mask is not None:
            latent = latent * mask.transpose(1, 2)
        x = self.embed(latent).transpose(1, 2)
        octave = source[:, 0].log2()[..., None]
        angles = 2 * math.pi * octave * octave.new_tensor(_PITCH_SCALES)
        x = x + self.pitch_embed(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return self.head(self.stack(x, mask), source, mask)

    def stream(self) -> Stream:
        """A stream from latent (batch, latent_dim, frames) to waveform, exact for any cutting."""
        return _HarmonicStream(self, self._render_frames)  # type: ignore[return-value]


class _HarmonicStream:
    """Pitch in windows, phase by counting, waveform in windows."""

    def __init__(self, decoder: HarmonicDecoder, render_frames: int) -> None:
        self._pitch = WindowedStream(decoder.predict_pitch, decoder.pitch.context_frames, 1, 1)
        self.look_ahead_frames = decoder.context_frames
        self._counter = decoder.phase_counter()
        self._render = WindowedStream(
            lambda joined: decoder.render(joined[:, :-3], joined[:, -3:]),
            render_frames,
            1,
            decoder.hop_length,
        )
        self._pending: Tensor | None = None

    def push(self, piece: Tensor, final: bool = False) -> Tensor:
        """See ``Stream.push``."""
        source = self._counter.push(self._pitch.push(piece, final))
        if self._pending is not None:
            piece = torch.cat([self._pending, piece], dim=-1)
        ready, self._pending = piece.tensor_split([source.shape[-1]], dim=-1)
        return self._render.push(torch.cat([ready, source], dim=1), final)


def _band_shapes(bands: int, n_fft: int, sample_rate: int) -> Tensor:
    """(bands, n_fft / 2 + 1): linear interpolation between centres even on the ERB scale."""
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    position = torch.log1p(_ERB * frequencies)
    position = position * ((bands - 1) / position[-1])
    return (1 - (position - torch.arange(bands)[:, None]).abs()).clamp(min=0)
