"""Balanced losses: what each contributes to the gradient at the reconstruction is its share."""

import pytest
import torch

from simvq_audio.training.balancer import WaveformGradient
from simvq_audio.training.losses import LossConfig

BATCH, SAMPLES = 3, 50
SHARES = {"mel": 1.0, "bins": 0.5, "adversarial": 0.25, "feature_matching": 0.0}
SCALES = {"mel": 1e-5, "bins": 1.0, "adversarial": 1e5, "feature_matching": 1.0}


def balancer(**changes) -> WaveformGradient:
    return WaveformGradient(LossConfig(balance=True, **{**SHARES, **changes}), torch.device("cpu"))


def losses(waveform: torch.Tensor, names=tuple(SCALES), factor: float = 1.0):
    """Losses, each of a part of the waveform by itself, with gradients of the given scales."""
    parts = dict(zip(SCALES, waveform.chunk(len(SCALES), dim=1)))
    return {name: factor * SCALES[name] * parts[name].sin().mean() for name in names}


def noise(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, SAMPLES, generator=generator).requires_grad_()


def norms(gradient: torch.Tensor) -> list[float]:
    """Of each loss's part: of items, averaged, for a loss that is a mean over items."""
    parts = (BATCH * gradient).chunk(len(SCALES), dim=1)
    return [part.norm(dim=1).mean().item() for part in parts]


def test_shares_hold_whatever_the_scale():
    balance, waveform = balancer(), noise()
    assert norms(balance(losses(waveform), waveform)) == pytest.approx(list(SHARES.values()))
    for step in range(1, 60):
        waveform = noise(step)
        gradient = balance(losses(waveform), waveform)
    assert norms(gradient) == pytest.approx(list(SHARES.values()), rel=0.2)


def test_a_loss_that_falls_keeps_its_share_on_average_only():
    """The norm is averaged over some hundred steps: one step's small gradient stays small."""
    balance = balancer()
    for _ in range(100):
        waveform = noise()
        balance(losses(waveform), waveform)
    waveform = noise()
    small = norms(balance(losses(waveform, factor=0.01), waveform))
    assert small == pytest.approx([0.01 * share for share in SHARES.values()], rel=0.03)
    for _ in range(1000):
        waveform = noise()
        small = norms(balance(losses(waveform, factor=0.01), waveform))
    assert small == pytest.approx(list(SHARES.values()), rel=0.03)


def test_losses_that_come_later_start_from_their_own_norm():
    balance = balancer()
    for _ in range(20):
        waveform = noise()
        balance(losses(waveform, ("mel", "bins")), waveform)
    late = balance(losses(waveform, ("adversarial", "feature_matching")), waveform)
    assert norms(late) == pytest.approx([0, 0, SHARES["adversarial"], 0])


def test_the_size_of_a_batch_does_not_matter():
    waveform, double = noise(), torch.cat([noise().detach()] * 2).requires_grad_()
    one, two = balancer()(losses(waveform), waveform), balancer()(losses(double), double)
    torch.testing.assert_close(two[:BATCH], one / 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_step_spoils_no_average(bad):
    balance, waveform = balancer(), noise()
    balance(losses(waveform), waveform)
    before = {name: value.clone() for name, value in balance.state().items()}
    gradient = balance(losses(waveform, factor=bad), waveform)
    assert not gradient.isfinite().all()  # the step is skipped for it
    assert all(torch.equal(value, before[name]) for name, value in balance.state().items())


def test_a_loss_without_gradient_asks_for_nothing():
    balance, waveform = balancer(), noise()
    assert not balance(losses(waveform, factor=0.0), waveform).any()


def test_plain_weights_give_the_gradient_of_the_weighted_sum():
    config = LossConfig(**SHARES)
    waveform = noise()
    gradient = WaveformGradient(config, torch.device("cpu"))(losses(waveform), waveform)
    total = sum(SHARES[name] * loss for name, loss in losses(waveform).items())
    torch.testing.assert_close(gradient, torch.autograd.grad(total, waveform)[0])
