"""The learning rate over time, as a pure function of the step."""

from __future__ import annotations

import math

from simvq_audio.training.config import OptimizerConfig


def learning_rate_factor(
    config: OptimizerConfig, step: int, steps: int, fresh_since: int = 0
) -> float:
    """What the learning rate is multiplied by at ``step`` (from 0) of ``steps``, 0 to 1.

    Args:
        config: ``schedule`` "constant" stays at 1 until the last ``decay_steps`` steps, in which it
            falls in a straight line; "cosine" falls along half a cosine from the end of the
            warm-up on; "linear" in a straight line from there on. All end at ``final_factor``.
        steps: where the run ends.
        fresh_since: step at which the optimisers began without moments; the warm-up counts from
            there. Not 0 only after a start from the carrying form, which has no moments: Adam's
            first steps are as long as its learning rate, whatever the gradient.
    """
    warmup = min(1.0, (step - fresh_since + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        begin = steps - config.decay_steps
    else:
        begin = min(config.warmup_steps, steps)
    progress = min(1.0, max(0, step - begin) / max(1, steps - begin))
    fall = 0.5 * (1 - math.cos(math.pi * progress)) if config.schedule == "cosine" else progress
    return warmup * (1 - fall * (1 - config.final_factor))
