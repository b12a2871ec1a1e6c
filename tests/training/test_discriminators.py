"""The discriminators: their sizes, what they hear, and their configuration."""

import json

import numpy as np
import pytest
import torch

from simvq_audio.errors import ConfigError
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.discriminators import Discriminators, normalize_level
from simvq_audio.training.discriminators.config import (
    BandDiscriminatorConfig,
    ContrastDiscriminatorConfig,
    DiscriminatorConfig,
    PeriodDiscriminatorConfig,
    ResolutionDiscriminatorConfig,
    StftDiscriminatorConfig,
    compact,
    published,
)
from simvq_audio.training.discriminators.networks import ContrastDiscriminator, StftDiscriminator

SAMPLES = 6000
SMALL = DiscriminatorConfig(
    families=(
        StftDiscriminatorConfig(n_ffts=(512, 256), channels=4),
        PeriodDiscriminatorConfig(periods=(2, 7), channels=(4, 8, 8)),
        ResolutionDiscriminatorConfig(resolutions=((512, 128), (256, 64)), channels=4),
        BandDiscriminatorConfig(n_ffts=(512, 256), channels=4, normalize=True),
        ContrastDiscriminatorConfig(n_ffts=(512, 256), channels=4),
    )
)


@pytest.fixture(scope="module")
def small() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(SMALL)


def noise(batch: int = 2, samples: int = SAMPLES) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def test_published_sizes_are_those_of_the_published_modules():
    # Counted on the modules of github youngsheen/SimVQ; 41.1 M is also HiFi-GAN's well-known
    # multi-period discriminator.
    families = Discriminators(published()).families
    sizes = [sum(p.numel() for p in family.parameters()) for family in families]
    assert sizes == [41_105_770, 600_198, 41_105_770, 1_413_990]


def test_encodec_size():
    # EnCodec's own counts 283 398: its first layers have no weight normalisation, 32 gains each.
    config = DiscriminatorConfig(families=(StftDiscriminatorConfig(channels=32),))
    size = sum(p.numel() for p in Discriminators(config).parameters())
    assert size == 283_398 + 3 * 32


def test_shapes(small):
    stft, period, resolution, band, contrast = small(noise())
    frames = [1 + (SAMPLES - n) // (n // 4) for n in (512, 256)]
    assert [tuple(s.shape) for s in stft.scores] == [(2, 1, frames[0], 33), (2, 1, frames[1], 17)]
    # Two strides of 3 on 3000 and (padded) 858 rows.
    assert [tuple(s.shape) for s in period.scores] == [(2, 1, 334, 2), (2, 1, 96, 7)]
    assert [tuple(s.shape) for s in resolution.scores] == [(2, 1, 9, 6), (2, 1, 5, 12)]
    assert [s.shape[2] for s in band.scores] == [47, 94]
    assert [s.shape for s in contrast.scores] == [s.shape for s in stft.scores]
    for family, output in zip(SMALL.families, (stft, period, resolution, band, contrast)):
        assert all(len(features) == family.layers for features in output.features)
        assert all(f.ndim == 4 for features in output.features for f in features)


def test_period_discriminator_sees_each_phase_alone():
    config = DiscriminatorConfig(
        families=(PeriodDiscriminatorConfig(periods=(5,), channels=(4, 4)),)
    )
    torch.manual_seed(0)
    model = Discriminators(config)
    before = noise(1, 1000)
    after = before.clone()
    after[0, 503] += 1.0  # phase 3
    (a,), (b,) = model(before), model(after)
    changed = (a.scores[0] != b.scores[0]).any(dim=2)[0, 0]
    assert changed.tolist() == [False, False, False, True, False]


def test_each_band_hears_itself_only(small):
    time = torch.arange(SAMPLES, dtype=torch.float64) / 24_000

    def tones(*hz: float) -> torch.Tensor:
        # Periodic in the window, so that the rectangular window does not leak.
        return 0.1 * torch.stack([torch.sin(2 * np.pi * f * time) for f in hz]).sum(0)[None].float()

    member = small.families[3][0]
    base, raised, lowered = (
        member(tones(*hz))[1] for hz in ((750.0, 9000.0), (750.0, 10_500.0), (375.0, 9000.0))
    )
    lowest, highest = 0, 5 * 4  # first layers of the bands from 0 to 0.1 and from 0.75 to 1

    def change(layer: int, features: list[torch.Tensor]) -> torch.Tensor:
        inside = slice(4, -4)  # the reflected ends are not periodic
        return (features[layer] - base[layer])[:, :, inside].abs().max()

    assert change(lowest, raised) < 1e-3 * change(lowest, lowered)
    assert change(highest, lowered) < 1e-3 * change(highest, raised)


def test_normalised_families_do_not_hear_level_and_offset(small):
    quiet, loud = small(noise()), small(5 * noise() + 0.3)
    torch.testing.assert_close(quiet[3].scores, loud[3].scores, rtol=1e-3, atol=1e-4)
    of_quiet, of_loud = (output[0].features[0][0].std() for output in (quiet, loud))
    assert of_loud > 2 * of_quiet


def test_normalize_level():
    given = torch.tensor([[0.1, 0.3, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]])
    expected = torch.tensor([[-0.8, 0.8, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(normalize_level(given), expected)


def test_items_of_a_batch_do_not_mix(small):
    one, other = noise(2)[:1], noise(2)[1:]
    together, alone = small(torch.cat([one, other])), small(one)
    for a, b in zip(together, alone):
        for x, y in zip(a.scores, b.scores):
            torch.testing.assert_close(x[:1], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("level", [0.1, 1e-6, 0.0])
def test_gradients_reach_waveform_and_weights_and_are_finite(small, bf16, level):
    waveform = (10 * level * noise()).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = small(waveform)
    scores = [score for output in outputs for score in output.scores]
    assert all(score.dtype == torch.float32 and score.isfinite().all() for score in scores)
    small.zero_grad()
    torch.stack([score.square().mean() for score in scores]).sum().backward()
    assert waveform.grad.isfinite().all()
    gradients = [parameter.grad for parameter in small.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    if level == 0.1:
        assert (waveform.grad != 0).float().mean() > 0.99
        assert all(gradient.any() for gradient in gradients)


def test_bf16_is_close_to_float32(small):
    with torch.autocast("cpu", torch.bfloat16):
        rounded = small(noise())
    for a, b in zip(small(noise()), rounded):
        for x, y in zip(a.scores, b.scores):
            assert (x - y).abs().max() < 0.05 * x.abs().max()


def test_short_crops_are_named(small):
    with pytest.raises(ConfigError, match=r"crops of 400 samples .* window of 512"):
        small(noise(1, 400))


def read(values) -> DiscriminatorConfig:
    return TrainingConfig.from_dict({"discriminators": values}, "recipe").discriminators


@pytest.mark.parametrize("make", [compact, published])
def test_configuration_survives_json(make):
    assert read(json.loads(json.dumps(make().to_dict()))) == make()
    assert read(make.__name__) == make()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("big", ": must be 'compact' or 'published' or a table, not 'big'"),
        (3, " must be a table of settings, not 3"),
        ({"families": []}, ".families "),
        ({"families": [3]}, ".families.0 must be a table"),
        ({"families": [{"kind": "scale"}]}, ".families.0.kind must be one of 'stft', 'contrast'"),
        ({"families": [{"kind": ["stft"]}]}, ".families.0.kind must be one of"),
        ({"families": [{}]}, ".families.0.kind must be one of"),
        ({"families": [{"kind": "stft"}, {"kind": "band", "chanels": 3}]}, ".families.1.chanels"),
        ({"families": [{"kind": "stft", "gan": "wasserstein"}]}, ".gan must be 'hinge' or"),
        ({"families": [{"kind": "stft", "reduction": "max"}]}, ".reduction must be 'mean' or"),
        ({"families": [{"kind": "stft", "feature_matching": "l2"}]}, ".feature_matching must be"),
        ({"families": [{"kind": "stft", "n_ffts": 512}]}, ".n_ffts must be a valid tuple"),
        ({"families": [{"kind": "stft", "compression": 0}]}, ".compression must be greater than 0"),
        ({"families": [{"kind": "stft", "weight": 0}]}, ".weight must be greater than 0"),
        ({"families": [{"kind": "stft", "first_feature": 5}]}, "first_feature must be below 5"),
        ({"families": [{"kind": "period", "channels": []}]}, ".channels "),
        ({"families": [{"kind": "period", "periods": [2, 0]}]}, ".periods.1 must be greater"),
        ({"families": [{"kind": "resolution", "resolutions": [[512]]}]}, ".resolutions.0.1 is"),
        ({"families": [{"kind": "band", "bands": [0, 0.5, 0.2]}]}, "bands must be rising"),
        ({"families": [{"kind": "band", "bands": [0, 0.001, 1]}]}, "a band without a bin"),
        ({"families": [{"kind": "stft"}], "family": 1}, "unknown key recipe.discriminators.family"),
    ],
)
def test_configuration_errors_name_the_key(values, words):
    with pytest.raises(ConfigError) as caught:
        read(values)
    assert words in str(caught.value)
    assert "recipe.discriminators" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_compression_raises_magnitudes_to_its_power_and_keeps_phases():
    """Input of the first layer for a tone at two levels."""
    torch.manual_seed(0)
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(2048) / 24_000)[None]
    seen = []
    discriminator = StftDiscriminator(512, 4, compression=0.5)
    discriminator.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain = StftDiscriminator(512, 4)
    plain.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    discriminator(tone)
    plain(tone)
    compressed, linear = (torch.complex(x[:, 0], x[:, 1]) for x in seen)
    loud = linear.abs() > 0.01
    assert loud.any()
    torch.testing.assert_close(compressed[loud].abs(), linear[loud].abs() ** 0.5, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        compressed[loud] / compressed[loud].abs(), linear[loud] / linear[loud].abs()
    )


def test_contrast_is_what_remains_of_magnitudes_without_level_and_tilt():
    """Input of the first layer for noise at two levels and after a first difference."""
    torch.manual_seed(0)
    discriminator = ContrastDiscriminator(512, 4)
    seen = []
    discriminator.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    quiet = noise()
    tilted = quiet - 0.9 * quiet.roll(1, dims=1)
    for waveform in (quiet, 10 * quiet, tilted):
        discriminator(waveform)
    (contrast, mean), (of_loud, mean_of_loud), (of_tilted, _) = (x.unbind(1) for x in seen)
    # All but what lies near the floor.
    assert (of_loud - contrast).abs().mean() < 1e-3
    rise = torch.full_like(mean, 0.3 * np.log(10))
    torch.testing.assert_close(mean_of_loud - mean, rise, rtol=0, atol=3e-3)
    inside = slice(16, -16)  # bins whose surroundings do not reach over an edge
    changed = (of_tilted - contrast)[..., inside].std()
    assert changed < 0.3 * contrast[..., inside].std()
    # 12 to 20 dB of tilt went into the mean: what is left has none.
    torch.testing.assert_close(contrast[..., inside].mean(), torch.tensor(0.0), rtol=0, atol=0.05)
