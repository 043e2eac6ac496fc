"""The sweep of a recogniser: new against general word errors, beside mixtures that are made by hand and jiwer."""

from __future__ import annotations

import copy

import jiwer
import pytest
import torch
from torch.optim.swa_utils import update_bn

from lightning_transfer.callbacks.forgetting_interpolate import ALPHAS
from tests.unit.callbacks.words_toys import GENERAL, TRAIN, VAL, heard, monitor, recogniser, said, train

EPOCHS = 5


def watcher(limit, **options):
    given = {"tolerance": {"wer": limit}, "on_alarm": "interpolate", "monitor": "val_wer", "mode": "min"}
    return monitor(**{"downstream_head": "head", "backbone": "backbone", **given, **options})


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    _, end = train(tmp_path_factory.mktemp("ends"), epochs=EPOCHS)
    return recogniser(), end


def by_hand(ends, alpha, head):
    """Word errors on the new and the general data of a mixture, with BatchNorm computed anew."""
    first, last = (end.state_dict() for end in ends)
    mixed = copy.deepcopy(ends[1])
    state = {
        name: (1 - alpha) * first[name] + alpha * value
        if value.is_floating_point() and (head or not name.startswith("head"))
        else value
        for name, value in last.items()
    }
    mixed.load_state_dict(state)
    update_bn([TRAIN.x[start : start + 8] for start in (0, 8, 16)], mixed)
    return [jiwer.wer(said(data), heard(mixed, data)) for data in (VAL, GENERAL)]


@pytest.mark.filterwarnings("ignore:ForgettingMonitor, step")
@pytest.mark.parametrize("head", [True, False], ids=["a head that is pretrained too", "a new head"])
def test_the_sweep_is_that_by_hand_and_the_best_within_the_budget_is_taken(tmp_path, ends, head):
    expected = {alpha: by_hand(ends, alpha, head) for alpha in (0.0, *ALPHAS)}
    before = jiwer.wer(said(GENERAL), heard(ends[0], GENERAL))
    lost = {alpha: general - before for alpha, (_, general) in expected.items()}
    limit = (lost[0.6] + lost[1.0]) / 2
    callback, module = watcher(limit), recogniser()
    module.head_is_pretrained = head
    train(tmp_path, callback, module=module, epochs=EPOCHS)
    found = callback.summary["interpolation"]
    assert [row["alpha"] for row in found["tried"]] == list(ALPHAS)
    assert found["limits"] == {"forgetting_wer": limit}
    for row in found["tried"]:
        # A word on the border between two may fall either way by the last digit of a weight.
        assert row["score"] == pytest.approx(expected[row["alpha"]][0], abs=0.011)
        assert row["readings"]["forgetting_wer"] == pytest.approx(lost[row["alpha"]], abs=0.011)
        assert row["within"] == (row["readings"]["forgetting_wer"] <= limit)
    inside = [row for row in found["tried"] if row["within"]]
    assert 0 < len(inside) < len(ALPHAS), "the budget decides nothing here, so nothing is shown"
    assert found["alpha"] == min(inside, key=lambda row: (row["score"], row["alpha"]))["alpha"]
    if head:
        start = found["pretrained"]
        assert start["alpha"] == 0.0
        assert (start["score"], start["readings"]["forgetting_wer"] + before) == pytest.approx(expected[0.0], abs=0.011)
    else:
        assert found["pretrained"] is None
    assert torch.equal(module.head.weight, ends[1].head.weight) == (not head)
    assert callback.source_scores(3 * EPOCHS)["source_wer"]["change"].value == pytest.approx(
        next(row["readings"]["forgetting_wer"] for row in inside if row["alpha"] == found["alpha"])
    )
