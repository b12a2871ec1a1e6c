"""Adversarial and feature matching losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from simvq_audio.training.discriminators import FamilyOutput
from simvq_audio.training.discriminators.config import DiscriminatorConfig, Family


def discriminator_loss(
    config: DiscriminatorConfig, real: Sequence[FamilyOutput], fake: Sequence[FamilyOutput]
) -> Tensor:
    """Loss of the discriminators.

    Args:
        config: its families choose the kind of loss.
        real, fake: outputs of ``Discriminators`` for originals and reconstructions.

    Returns:
        scalar: the weighted sum over families.

    Source: hinge as in Vocos (arXiv 2306.00814) and EnCodec (arXiv 2210.13438), least squares as
    in HiFi-GAN (arXiv 2010.05646) and DAC (arXiv 2306.06546).
    """
    total = fake[0].scores[0].new_zeros(())
    for family, r, f in zip(config.families, real, fake):
        terms = [
            _distance(family, ours, 1).mean() + _distance(family, theirs, -1).mean()
            for ours, theirs in zip(r.scores, f.scores)
        ]
        total = total + family.weight * _reduce(family, terms)
    return total


def generator_losses(
    config: DiscriminatorConfig, real: Sequence[FamilyOutput], fake: Sequence[FamilyOutput]
) -> dict[str, Tensor]:
    """Losses of the generator; gradients flow through ``fake`` only.

    Args and source: as for ``discriminator_loss``; see ``FamilyConfig`` for feature matching.

    Returns:
        scalars "adversarial" and "feature_matching": weighted sums over families.
    """
    adversarial = fake[0].scores[0].new_zeros(())
    matching = adversarial
    for family, r, f in zip(config.families, real, fake):
        scores = [_distance(family, score, 1).mean() for score in f.scores]
        adversarial = adversarial + family.weight * _reduce(family, scores)
        matched = [
            _feature_distance(family, _matched(family, r, index), _matched(family, f, index))
            for index in range(len(f.scores))
        ]
        matching = matching + family.weight * _reduce(family, matched)
    return {"adversarial": adversarial, "feature_matching": matching}


def _distance(family: Family, score: Tensor, label: int) -> Tensor:
    """Loss of scores for "real" (label 1) or "fake" (label -1), elementwise."""
    if family.gan == "hinge":
        return torch.relu(1 - label * score)
    # Least squares places fakes at 0, not at -1.
    return (score - max(label, 0)).square()


def _matched(family: Family, output: FamilyOutput, index: int) -> list[Tensor]:
    """Tensors of one sub-discriminator that feature matching compares."""
    features = output.features[index][family.first_feature :]
    return [*features, output.scores[index]] if family.match_scores else features


def _feature_distance(family: Family, real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """One sub-discriminator's feature matching loss."""
    real = [r.detach() for r in real]
    # In the features' precision, which rounds a layer's mean by 0.4 % at most, since sums are in
    # float32; float32 features would take twice the time.
    distances = torch.stack([F.l1_loss(f, r) for r, f in zip(real, fake)]).float()
    if family.feature_matching == "l1":
        return distances.sum()
    # Relative, so that deep and shallow layers have equal weight.
    scales = torch.stack([r.abs().mean() for r in real]).float().clamp(min=1e-5)
    return (distances / scales).mean()


def _reduce(family: Family, terms: list[Tensor]) -> Tensor:
    """Over a family's sub-discriminators."""
    total = torch.stack(terms)
    return total.mean() if family.reduction == "mean" else total.sum()
