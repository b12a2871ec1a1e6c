"""HiFi-GAN's multi-period discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.training.discriminators.layers import channels_last, conv, run_layers


class PeriodDiscriminator(nn.Module):
    """Convolutions along every ``period``-th sample, the same for each of the phases.

    Source: ``DiscriminatorP`` of HiFi-GAN (arXiv 2010.05646). DAC's differs in that it pads a
    whole period where the length is a multiple of it already; this one does not.

    Args:
        period: in samples.
        channels: of each layer; all but the last stride by 3.
    """

    SLOPE = 0.1

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        inputs = [1, *channels[:-1]]
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            conv(i, o, (5, 1), stride=(s, 1)) for i, o, s in zip(inputs, channels, strides)
        )
        self.score = conv(channels[-1], 1, (3, 1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> scores (batch, 1, time, period) and every layer's features."""
        missing = -waveform.shape[-1] % self.period
        x = F.pad(waveform, (0, missing), mode="reflect") if missing else waveform
        x = x.view(x.shape[0], 1, -1, self.period)
        x, features = run_layers(self.layers, channels_last(x), self.SLOPE)
        return self.score(x).float(), features
