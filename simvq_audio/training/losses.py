"""What the generator is judged by, beside the discriminators."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def limit_bandwidth(waveforms: Tensor, bandwidths: Tensor, sample_rate: int) -> Tensor:
    """Remove what lies above each item's bandwidth: (batch, samples), (batch,) Hz -> (batch, samples).

    Applied to original and reconstruction alike, it keeps material that was recorded at a lower
    rate from teaching the model that there is nothing above. The filter is a brick wall over the
    whole crop, differentiable.
    """
    samples = waveforms.shape[-1]
    spectrum = torch.fft.rfft(waveforms)
    hz = torch.fft.rfftfreq(samples, 1 / sample_rate, device=waveforms.device)
    return torch.fft.irfft(spectrum * (hz <= bandwidths[:, None]), samples)


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes, averaged over window lengths.

    Natural logarithm, Slaney mel scale and normalisation (librosa's default), hop of a quarter
    window, magnitudes floored at 1e-5 of full scale.

    Source: Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), with the
    number of bands growing with the window so that no filter is empty.
    """

    SCALES = ((64, 6), (128, 12), (256, 24), (512, 48), (1024, 80), (2048, 128))

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        for n_fft, bands in self.SCALES:
            filters = melscale_fbanks(
                n_fft // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, "slaney", "slaney"
            )
            self.register_buffer(f"filters_{n_fft}", filters, persistent=False)
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        """(batch, samples) twice -> scalar, in nepers."""
        both = torch.cat([reconstruction, original])
        total = both.new_zeros(())
        for n_fft, _ in self.SCALES:
            window = getattr(self, f"window_{n_fft}")
            spectrum = torch.stft(
                both, n_fft, n_fft // 4, window=window, return_complex=True, pad_mode="constant"
            )
            # Not abs(): its gradient is undefined where both parts are zero.
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
            mel = magnitude.transpose(1, 2) @ getattr(self, f"filters_{n_fft}")
            log_mel = mel.clamp(min=1e-5).log()
            ours, theirs = log_mel.chunk(2)
            total = total + (ours - theirs).abs().mean()
        return total / len(self.SCALES)


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge loss, mean over discriminators, from their score maps (any shape)."""
    terms = [torch.relu(1 - r).mean() + torch.relu(1 + f).mean() for r, f in zip(real, fake)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[Tensor]) -> Tensor:
    """The generator's side of the hinge loss, mean over discriminators."""
    return torch.stack([-f.mean() for f in fake]).mean()


def feature_matching_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean absolute difference of features relative to the real ones' mean magnitude.

    Source: EnCodec (arXiv 2210.13438): relative, so that deep and shallow layers count alike.
    """
    terms = [
        (f - r.detach()).abs().mean() / r.detach().abs().mean().clamp(min=1e-5)
        for r, f in zip(real, fake)
    ]
    return torch.stack(terms).mean()
