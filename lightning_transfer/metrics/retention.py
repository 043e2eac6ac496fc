"""Which weights to keep when a model gains on a new task and loses on the old one: a score, and a budget for the loss.

The score is that of Majumdar et al. 2022, "Damage Control During Domain Adaptation for Transducer Based Automatic
Speech Recognition" (https://arxiv.org/abs/2210.03255). All values are error rates such as WER: smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["budget_left", "relative_gain", "retention_rank", "retention_score"]

_SLACK = 1e-9


def budget_left(losses: Sequence[float], budgets: Sequence[float]) -> float:
    """Return the share of the budget for the old tasks that is left: ``O_SCALE``, equations 1 and 2 of the paper.

    ``mean_i max(0, kappa_i - max(0, loss_i)) / kappa_i``: 1 where nothing was lost, 0 where every budget is used up.
    What became better on an old task counts as no loss. (The authors' published script takes the loss's absolute
    value instead, so that an improvement counts as damage; this follows the paper.)

    Args:
        losses: Error rate now minus error rate before, of each old task.
        budgets: Largest loss of each that is accepted, above 0: ``kappa``.

    Raises:
        ValueError: If there is no old task, a budget is not above 0, or the two are not of one length.

    Example:
        >>> budget_left([0.01], [0.04]), budget_left([-0.1, 0.03], [0.02, 0.02])
        (0.75, 0.5)
    """
    _check(losses, budgets)
    return sum(max(0.0, kappa - max(0.0, loss)) / kappa for loss, kappa in zip(losses, budgets, strict=True)) / len(
        budgets
    )


def relative_gain(before: float, now: float) -> float:
    """Return the share of the new task's errors that is gone, at least 0: the paper's relative improvement of WER.

    Without errors before there is nothing to gain, which is 0.

    Args:
        before: Error rate on the new task before adapting.
        now: Error rate on it now.

    Example:
        >>> relative_gain(0.5, 0.125), relative_gain(0.5, 0.625), relative_gain(0.0, 0.0)
        (0.75, 0.0, 0.0)
    """
    return max(0.0, before - now) / before if before > 0 else 0.0


def retention_score(before: float, now: float, losses: Sequence[float], budgets: Sequence[float]) -> float:
    """Return the score of a candidate: its relative gain on the new task times the share of the budget that is left.

    Args:
        before: Error rate on the new task before adapting.
        now: Error rate on it now.
        losses: As for `budget_left`.
        budgets: As for `budget_left`.

    Returns:
        A number from 0 to 1; larger is better.

    Example:
        >>> retention_score(0.5, 0.125, [0.01], [0.04])
        0.5625
    """
    return relative_gain(before, now) * budget_left(losses, budgets)


def retention_rank(before: float, now: float, losses: Sequence[float], budgets: Sequence[float]) -> float:
    """Return a number that orders candidates under a hard budget; the largest is the one to keep.

    Within the budget of every old task it is the `retention_score`. Past one it is below 0: minus the largest excess,
    as a multiple of its budget. So any candidate within the budget comes before any that is not, and among those
    that are not the one that is least past it comes first. (The paper's own score is 0 for all of the latter, or with
    several old tasks even positive.)

    Args:
        before: Error rate on the new task before adapting.
        now: Error rate on it now.
        losses: As for `budget_left`.
        budgets: As for `budget_left`.

    Example:
        >>> retention_rank(0.5, 0.125, [0.01], [0.04]), retention_rank(0.5, 0.125, [0.5], [0.25])
        (0.5625, -1.0)
    """
    _check(losses, budgets)
    if not math.isfinite(now) or not all(math.isfinite(loss) for loss in losses):
        return -math.inf
    excess = max((loss - kappa) / kappa for loss, kappa in zip(losses, budgets, strict=True))
    # A difference of two rates that is the budget may be past it by its last digit.
    return -excess if excess > _SLACK else retention_score(before, now, losses, budgets)


def _check(losses: Sequence[float], budgets: Sequence[float]) -> None:
    if not losses or len(losses) != len(budgets):
        raise ValueError(f"Expected one budget for each loss, and at least one, got {len(losses)} and {len(budgets)}.")
    for kappa in budgets:
        if not 0 < kappa < math.inf:
            raise ValueError(f"Expected budgets above 0, got {kappa}. 0.02 accepts two more wrong words in a hundred.")
