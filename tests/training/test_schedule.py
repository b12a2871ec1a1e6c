"""The learning rate at chosen steps, against values worked out by hand."""

from __future__ import annotations

import pytest

from simvq_audio.training.config import OptimizerConfig
from simvq_audio.training.step import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 0, 0.1),
        ("constant", 4, 0.5),
        ("constant", 9, 1.0),
        ("constant", 80, 1.0),
        ("constant", 90, 0.5),
        ("constant", 99, 0.05),
        ("cosine", 4, 0.5),
        ("cosine", 10, 1.0),
        ("cosine", 40, 0.75),  # cos(pi / 3) = 0.5
        ("cosine", 55, 0.5),
        ("cosine", 100, 0.0),
    ],
)
def test_factor(schedule, step, factor):
    config = OptimizerConfig(schedule=schedule, warmup_steps=10, decay_steps=20)
    assert learning_rate_factor(config, step, 100) == pytest.approx(factor)


def test_decay_ends_at_the_final_factor():
    for schedule in ("constant", "cosine"):
        config = OptimizerConfig(schedule=schedule, decay_steps=20, final_factor=0.2)
        assert learning_rate_factor(config, 1000, 1000) == pytest.approx(0.2)
    halfway = OptimizerConfig(decay_steps=100, warmup_steps=0, final_factor=0.2)
    assert learning_rate_factor(halfway, 50, 100) == pytest.approx(0.6)


def test_published_runs_do_without_any():
    config = OptimizerConfig(warmup_steps=0, decay_steps=0)
    assert {learning_rate_factor(config, step, 100) for step in range(100)} == {1.0}


def test_fresh_optimisers_are_warmed_up_in_the_middle_of_a_run():
    config = OptimizerConfig(warmup_steps=10, decay_steps=20)
    assert learning_rate_factor(config, 50, 100, fresh_since=50) == pytest.approx(0.1)
    assert learning_rate_factor(config, 59, 100, fresh_since=50) == 1.0
