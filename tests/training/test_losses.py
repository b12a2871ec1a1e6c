"""Losses against independent computations: by hand, NumPy, librosa and auraloss."""

import sys

import librosa
import numpy as np
import pytest
import torch

from simvq_audio.errors import ConfigError, MissingExtraError
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.discriminators import FamilyOutput
from simvq_audio.training.discriminators.config import (
    DiscriminatorConfig,
    PeriodDiscriminatorConfig,
)
from simvq_audio.training.losses import (
    LossConfig,
    MelConfig,
    SpectralLosses,
    discriminator_loss,
    generator_losses,
    limit_bandwidth,
)

RATE = 24_000


def pair(samples: int = 9000) -> tuple[torch.Tensor, torch.Tensor]:
    """A reconstruction and an original, two items each."""
    generator = torch.Generator().manual_seed(2)
    time = torch.arange(samples) / RATE
    pitch = torch.tensor([[110.0], [440.0]])
    original = 0.3 * torch.sin(2 * np.pi * pitch * time * (1 + time))
    original += 0.02 * torch.randn(2, samples, generator=generator)
    return 0.8 * original + 0.05 * torch.randn(2, samples, generator=generator), original


def numpy_stft(x: torch.Tensor, window: int, hop: int) -> np.ndarray:
    """(samples,) -> (bins, frames), straight from the definition, in double precision."""
    padded = np.pad(x.double().numpy(), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(padded) - window + 1, hop)
    return np.stack([np.fft.rfft(padded[s : s + window] * hann) for s in starts], axis=1)


# -- adversarial -------------------------------------------------------------------------------

# Two sub-discriminators with score maps of unlike sizes and two layers each.
REAL = FamilyOutput(
    [torch.tensor([[0.5, 2.0]]), torch.tensor([[-1.0]])],
    [
        [torch.tensor([1.0, 3.0]), torch.tensor([2.0])],
        [torch.tensor([4.0, -4.0]), torch.tensor([0.5, 0.5])],
    ],
)
FAKE = FamilyOutput(
    [torch.tensor([[-3.0, 0.0]]), torch.tensor([[0.25]])],
    [
        [torch.tensor([1.5, 2.0]), torch.tensor([5.0])],
        [torch.tensor([4.0, -2.0]), torch.tensor([0.0, 1.0])],
    ],
)


def family(**options) -> DiscriminatorConfig:
    return DiscriminatorConfig(
        families=(PeriodDiscriminatorConfig(periods=(2, 3), channels=(4, 8), **options),)
    )


@pytest.mark.parametrize(
    ("options", "of_discriminators", "of_generator"),
    [
        # relu(1 - real): (0.5 + 0) / 2 and 2; relu(1 + fake): (0 + 1) / 2 and 1.25;
        # relu(1 - fake): (4 + 1) / 2 and 0.75.
        ({"gan": "hinge", "reduction": "mean"}, (0.75 + 3.25) / 2, (2.5 + 0.75) / 2),
        ({"gan": "hinge", "reduction": "sum", "weight": 2.0}, 2 * 4.0, 2 * 3.25),
        # (1 - real)^2: (0.25 + 1) / 2 and 4; fake^2: 9 / 2 and 0.0625;
        # (1 - fake)^2: (16 + 1) / 2 and 0.5625.
        ({"gan": "least_squares", "reduction": "sum"}, 0.625 + 4 + 4.5 + 0.0625, 9.0625),
        ({"gan": "least_squares", "reduction": "mean"}, 9.1875 / 2, 9.0625 / 2),
    ],
)
def test_gan_losses_by_hand(options, of_discriminators, of_generator):
    config = family(**options)
    assert discriminator_loss(config, [REAL], [FAKE]).item() == pytest.approx(of_discriminators)
    losses = generator_losses(config, [REAL], [FAKE])
    assert losses["adversarial"].item() == pytest.approx(of_generator)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Distances by layer: 0.75 and 3; 1 and 0.5. Real magnitudes: 2 and 2; 4 and 0.5.
        # Distances of scores: (3.5 + 2) / 2 and 1.25.
        ({"feature_matching": "l1", "reduction": "sum"}, 5.25),
        ({"feature_matching": "l1", "reduction": "mean"}, 2.625),
        ({"feature_matching": "l1", "reduction": "sum", "first_feature": 1}, 3.5),
        ({"feature_matching": "l1", "reduction": "sum", "match_scores": True}, 5.25 + 4.0),
        (
            {"feature_matching": "relative", "weight": 3.0},
            3 * ((0.75 / 2 + 3 / 2) / 2 + (1 / 4 + 0.5 / 0.5) / 2) / 2,
        ),
    ],
)
def test_feature_matching_by_hand(options, expected):
    losses = generator_losses(family(**options), [REAL], [FAKE])
    assert losses["feature_matching"].item() == pytest.approx(expected)


def test_families_add_up():
    hinge, squares = family(gan="hinge"), family(gan="least_squares", reduction="sum", weight=0.5)
    both = DiscriminatorConfig(families=(*hinge.families, *squares.families))
    separate = [discriminator_loss(c, [REAL], [FAKE]).item() for c in (hinge, squares)]
    assert separate[0] != separate[1]
    total = discriminator_loss(both, [REAL, REAL], [FAKE, FAKE]).item()
    assert total == pytest.approx(sum(separate))
    ours = generator_losses(both, [REAL, REAL], [FAKE, FAKE])
    parts = [generator_losses(c, [REAL], [FAKE]) for c in (hinge, squares)]
    for name in ("adversarial", "feature_matching"):
        assert ours[name].item() == pytest.approx(sum(part[name].item() for part in parts))


def test_generator_learns_from_fakes_and_discriminators_from_both():
    real, fake = (
        FamilyOutput(
            [s.clone().requires_grad_() for s in output.scores],
            [[f.clone().requires_grad_() for f in features] for features in output.features],
        )
        for output in (REAL, FAKE)
    )
    config = family(match_scores=True, feature_matching="relative")
    losses = generator_losses(config, [real], [fake])
    (losses["adversarial"] + losses["feature_matching"]).backward()
    assert all(s.grad is None for s in real.scores)
    assert all(f.grad is None for features in real.features for f in features)
    assert all(s.grad.any() for s in fake.scores)
    assert all(f.grad.any() for features in fake.features for f in features)
    for score in fake.scores:
        score.grad = None
    discriminator_loss(config, [real], [fake]).backward()
    assert all(s.grad.any() for s in (*real.scores, *fake.scores))


# -- spectral ----------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", ["slaney", "htk"])
def test_mel_against_librosa(filters):
    config = MelConfig(scales=((1024, 256, 100), (256, 64, 20)), filters=filters, floor=1e-3)
    ours, original = pair()
    expected = []
    for window, hop, bands in config.scales:
        bank = librosa.filters.mel(
            sr=RATE,
            n_fft=window,
            n_mels=bands,
            htk=filters == "htk",
            norm="slaney" if filters == "slaney" else None,
        )
        logs = [
            [np.log(np.maximum(bank @ np.abs(numpy_stft(x, window, hop)), 1e-3)) for x in batch]
            for batch in (ours, original)
        ]
        expected.append(np.abs(np.array(logs[0]) - np.array(logs[1])).mean())
    loss = SpectralLosses(LossConfig(), config, RATE)
    assert loss(ours, original)["mel"].item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_published_mel_is_torchaudios():
    # As the published code computes it: torchaudio's defaults, clipped at 1e-7.
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(RATE, n_fft=1024, hop_length=256, n_mels=100, center=True, power=1)
    ours, original = pair()
    a, b = (transform(x).clip(min=1e-7).log() for x in (ours, original))
    config = MelConfig(scales=((1024, 256, 100),), filters="htk", floor=1e-7)
    loss = SpectralLosses(LossConfig(mel=45.0), config, RATE)
    losses = loss(ours, original)
    assert losses["mel"].item() == pytest.approx((a - b).abs().mean().item(), rel=1e-5)
    assert loss.total(losses).item() == pytest.approx(45 * losses["mel"].item())


def tones(spacing: float, first: float, last: float, seed: int) -> torch.Tensor:
    """(1, 24000): tones of one level, ``spacing`` Hz apart, with random phases."""
    draw = torch.Generator().manual_seed(seed)
    hz = torch.arange(first, last, spacing)[:, None]
    phases = 2 * torch.pi * torch.rand(len(hz), 1, generator=draw)
    seconds = torch.arange(24_000) / 24_000
    return 0.01 * torch.sin(2 * torch.pi * hz * seconds + phases).sum(dim=0, keepdim=True)


def test_bins_hears_harmonics_that_a_mel_band_joins():
    loss = SpectralLosses(LossConfig(bins=1.0), MelConfig(scales=((2048, 512, 128),)), 24_000)
    # 100 Hz apart; of other phases; between the places where they were.
    voice, same, hoarse = (
        tones(100, first, 7000, s) for first, s in ((1500, 0), (1500, 1), (1550, 0))
    )
    kept, lost = loss(same, voice), loss(hoarse, voice)
    assert lost["bins"] > 10 * kept["bins"]
    assert lost["bins"] > 3 * lost["mel"]


def test_bins_weighs_bins_by_the_ears_scale():
    loss = SpectralLosses(LossConfig(mel=0.0, bins=1.0), MelConfig(), 24_000)
    noise = 1e-4 * torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0))
    low, high = (tones(100, hz, hz + 50, 0) for hz in (100, 6000))
    voice = low + tones(100, 200, 6000, 0) + high + noise
    # One harmonic is gone, at either end: of the lower one the ear makes 19 times as much.
    low_lost, high_lost = (loss(voice - tone, voice)["bins"] for tone in (low, high))
    assert low_lost > 15 * high_lost > 0


ALL_TERMS = LossConfig(bins=1.0, pesq=1.0, stoi=1.0), MelConfig()
NAMES = {"mel", "bins", "pesq", "stoi"}


@pytest.mark.parametrize("ours_level", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("original_level", [0.0, 1.0])
def test_spectral_gradients_are_finite_in_silence(ours_level, original_level):
    ours, original = pair()
    ours = (ours_level * ours).requires_grad_()
    loss = SpectralLosses(*ALL_TERMS, RATE)
    losses = loss(ours, original_level * original)
    assert set(losses) == NAMES
    loss.total(losses).backward()
    assert ours.grad.isfinite().all()
    if ours_level == 1.0:
        assert (ours.grad != 0).float().mean() > 0.99


def test_identical_waveforms_cost_nothing_and_descent_lowers_every_term():
    ours, original = pair()
    loss = SpectralLosses(*ALL_TERMS, RATE)
    for name, value in loss(original.clone(), original).items():
        assert value.item() == pytest.approx(0.0, abs=2e-4), name
    for name in sorted(NAMES):
        x = ours.clone().requires_grad_()
        before = loss(x, original)[name]
        (gradient,) = torch.autograd.grad(before, x)
        after = loss(x - 0.003 * gradient / gradient.square().mean().sqrt(), original)[name]
        assert after < before, name


def test_spectra_stay_in_float32_under_autocast():
    ours, original = pair()
    loss = SpectralLosses(*ALL_TERMS, RATE)
    plain = loss(ours, original)
    with torch.autocast("cpu", torch.bfloat16):
        under = loss(ours, original)
    assert {k: v.item() for k, v in plain.items()} == {k: v.item() for k, v in under.items()}


def test_spectra_are_shared_between_terms(monkeypatch):
    # The window and hop of the bins' loss.
    loss = SpectralLosses(LossConfig(bins=1.0), MelConfig(scales=((2048, 512, 80),)), RATE)
    calls = []
    stft = torch.stft
    monkeypatch.setattr(torch, "stft", lambda *a, **k: calls.append(a) or stft(*a, **k))
    loss(*pair())
    assert len(calls) == 2  # the reconstruction's and the original's


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio.functional", None)
    with pytest.raises(MissingExtraError, match=r"torchaudio.*simvq-audio\[train\]"):
        SpectralLosses(LossConfig(), MelConfig(), RATE)


def test_short_crops_are_named():
    with pytest.raises(ConfigError, match=r"crops of 1500 samples .* window of 2048"):
        SpectralLosses(LossConfig(), MelConfig(), RATE)(*pair(1500))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": "mel"}, "loss must be a table of settings, not 'mel'"),
        ({"loss": {"mell": 1.0}}, "unknown key recipe.loss.mell"),
        ({"loss": {"mel": -1.0}}, "recipe.loss.mel must be greater than or equal to 0"),
        ({"loss": {"mel": float("nan")}}, "recipe.loss.mel must be a finite number"),
        ({"loss": {"mel": 0.0}}, "recipe.loss: one of mel, bins, pesq and stoi must have a weight"),
        (
            {"loss": {"balance": True, "pesq": 2.0, "stoi": 1.0}},
            "recipe.loss: pesq and stoi must have at most 0.1 of the shares together, not 0.125",
        ),
        ({"mel": {"scales": [[512, 128]]}}, "recipe.mel.scales.0.2 is missing"),
        ({"mel": {"scales": [[513, 128, 20]]}}, "recipe.mel.scales.0.0 must be a multiple of 2"),
        ({"mel": {"filters": "bark"}}, "recipe.mel.filters must be 'slaney' or 'htk'"),
        ({"mel": {"floor": 0}}, "recipe.mel.floor must be greater than 0"),
    ],
)
def test_configuration_errors_name_the_key(values, words):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict(values, "recipe")
    assert words in str(caught.value)


# -- bandwidth ---------------------------------------------------------------------------------


def test_limit_bandwidth_removes_what_lies_above():
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    low, high = (torch.sin(2 * np.pi * hz * time).float() for hz in (1000, 9000))
    mixed = torch.stack([low + high, low + high]).requires_grad_()
    limited = limit_bandwidth(mixed, torch.tensor([8000.0, 12_000.0]), RATE)
    torch.testing.assert_close(limited[0], low, atol=1e-4, rtol=0)
    torch.testing.assert_close(limited[1], low + high, atol=1e-4, rtol=0)
    # The gradient is limited likewise: nothing above is asked of the model.
    limited.backward(torch.stack([high, high]))
    assert mixed.grad[0].abs().max() < 1e-4
    torch.testing.assert_close(mixed.grad[1], high, atol=1e-4, rtol=0)


def test_limit_bandwidth_removes_the_slope_at_a_recordings_end_but_not_at_the_models():
    """16 kHz speech fades out from 7.4 kHz on; the model must not learn that as a notch."""
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    tones = torch.stack([torch.sin(2 * np.pi * hz * time).float() for hz in (7300, 7600, 11_900)])
    powers = limit_bandwidth(tones, torch.tensor([8000.0, 8000.0, 12_000.0]), RATE).square().mean(1)
    torch.testing.assert_close(powers, torch.tensor([0.5, 0.0, 0.5]), atol=1e-6, rtol=1e-3)
