"""The search for the best mixture, against mixtures that are made by hand from the two ends of the same run."""

from __future__ import annotations

import json

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, ForgettingMonitor
from lightning_transfer.callbacks.forgetting_interpolate import ALPHAS, choose, table
from tests.unit.callbacks.forgetting_toys import PROBE, dataset, source_head
from tests.unit.callbacks.interpolate_toys import by_hand, make, monitor, tolerance_between, train

pytestmark = pytest.mark.filterwarnings("ignore:ForgettingMonitor, step")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The two ends, of a run that only watches; watching changes nothing."""
    _, end = train(tmp_path_factory.mktemp("ends"))
    return make(), end


@pytest.fixture(scope="module")
def expected(ends):
    return {alpha: by_hand(*ends, alpha) for alpha in ALPHAS}


# ---- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lib", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
@pytest.mark.parametrize(("metric", "mode"), [("val_loss", "min"), ("val_acc", "max")])
def test_every_mixture_and_the_choice_are_those_made_by_hand(tmp_path, expected, lib, metric, mode):
    limit = tolerance_between(expected, 0.6, 0.7)
    callback = monitor(tolerance={"cosine": limit}, monitor=metric, mode=mode)
    trainer, module = train(tmp_path, callback, lib=lib)
    found = callback.summary["interpolation"]
    for row, (alpha, (_, values)) in zip(found["tried"], expected.items(), strict=True):
        assert row["alpha"] == alpha
        assert row["readings"]["forgetting_cosine"] == pytest.approx(values["cosine"], abs=1e-5)
        assert row["score"] == pytest.approx(values[metric], abs=1e-5)
        assert row["within"] == (values["cosine"] <= limit)
    sign = 1 if mode == "min" else -1
    best = min((alpha for alpha in ALPHAS if alpha <= 0.6), key=lambda a: (sign * round(expected[a][1][metric], 6), a))
    assert found["alpha"] == best
    for name, value in expected[best][0].state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, atol=1e-5, rtol=1e-5, msg=name)
    assert float(trainer.callback_metrics[metric]) == pytest.approx(expected[best][1][metric], abs=1e-5)


def test_head_and_integers_are_the_fine_tuned_ones_and_infinities_stay(tmp_path, ends, expected):
    callback = monitor(tolerance={"cosine": tolerance_between(expected, 0.6, 0.7)})
    _, module = train(tmp_path, callback)
    assert callback.summary["interpolation"]["alpha"] < 1
    end = ends[1].state_dict()
    for name in (
        "head.1.weight",
        "head.1.bias",
        "backbone.calls",
        "backbone.mask",
        "backbone.norm.num_batches_tracked",
    ):
        assert torch.equal(module.state_dict()[name], end[name]), name
    assert not torch.equal(module.backbone.conv.weight, end["backbone.conv.weight"])
    # What enters the head's BatchNorm is another feature now.
    assert not torch.equal(module.head[0].running_mean, end["head.0.running_mean"])


def test_batchnorm_that_never_trained_keeps_its_statistics(tmp_path):
    freezing = BackboneFreezeUnfreeze("full", backbone="backbone", bn_when_open="eval", verbose=False)
    start, callback = make(), monitor(tolerance={"cosine": 0.01})
    _, module = train(tmp_path, callback, freezing)
    assert 0 < callback.summary["interpolation"]["alpha"] < 1
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(module.backbone.norm, name), getattr(start.backbone.norm, name))
    assert not torch.equal(module.backbone.norm.weight, start.backbone.norm.weight)


def test_a_frozen_backbone_is_bitwise_what_it_was(tmp_path):
    freezing = BackboneFreezeUnfreeze("feature_extraction", backbone="backbone", verbose=False)
    start, callback = make(), monitor(tolerance={"cosine": 0.0, "agreement": 0.0})
    _, module = train(tmp_path, callback, freezing)
    assert all(row["readings"]["forgetting_cosine"] == 0.0 for row in callback.summary["interpolation"]["tried"])
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, start.backbone.state_dict()[name]), name


def test_where_no_mixture_is_within_the_fine_tuned_weights_stay(tmp_path, ends):
    callback = monitor(tolerance={"cosine": 0.0})
    saver = ModelCheckpoint(tmp_path)
    with pytest.warns(UserWarning, match="keeps the fine-tuned weights: no alpha keeps forgetting_cosine within 0"):
        _, module = train(tmp_path, callback, saver, enable_checkpointing=True)
    assert callback.summary["interpolation"]["alpha"] is None
    for name, value in ends[1].state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    assert not list(tmp_path.glob("interpolated*"))


def test_every_probe_and_every_tolerance_must_hold_but_not_a_stand_ins(tmp_path):
    probes = {"photos": PROBE, "others": dataset(16, 9), "grain": "noise"}
    callback = ForgettingMonitor(
        probes,
        head=source_head(),
        backbone="backbone",
        metrics=("cosine", "l2"),
        tolerance={"cosine": 0.4, "l2": 0.36},
        max_overhead=None,
        on_alarm="interpolate",
        monitor="val_loss",
    )
    train(tmp_path, callback)
    rows = callback.summary["interpolation"]["tried"]
    limits = {"forgetting_photos_cosine": 0.4, "forgetting_others_cosine": 0.4}
    limits |= {"forgetting_photos_l2": 0.36, "forgetting_others_l2": 0.36}
    within = [all(row["readings"][key] <= limit for key, limit in limits.items()) for row in rows]
    assert [row["within"] for row in rows] == within
    assert any(within)
    assert not all(within)
    assert any(row["readings"]["drift_grain_l2"] > 0.36 for row in rows if row["within"])


@pytest.mark.parametrize(
    ("mode", "rows", "best"),
    [
        ("max", [(0.3, 0.5, True), (0.6, 0.7, True), (0.9, 0.8, False)], 0.6),
        ("min", [(0.3, 0.5, True), (0.6, 0.7, True), (0.9, 0.1, False)], 0.3),
        ("max", [(0.6, 0.7, True), (0.3, 0.7, True)], 0.3),
        ("max", [(0.3, None, True), (0.6, 0.1, True)], 0.6),
        ("max", [(0.3, None, True), (0.6, 0.1, False)], None),
    ],
)
def test_choose(mode, rows, best):
    assert choose([{"alpha": a, "score": s, "within": w} for a, s, w in rows], mode) == best


def test_table_shows_what_cannot_be_read():
    row = {"alpha": 0.5, "score": None, "within": False, "readings": {"forgetting_kl": None}}
    assert table([row], "val_f1", {"forgetting_kl": 0.1}).splitlines()[1].split() == ["0.50", "n/a", "n/a"]


# ---- how it ends -----------------------------------------------------------------------------------------------------


def test_checkpoint_summary_line_and_last_reading(tmp_path, expected, caplog):
    limit = tolerance_between(expected, 0.6, 0.7)
    callback = monitor(tolerance={"cosine": limit})
    logger = CSVLogger(tmp_path, name="logs", version=0)
    saver = ModelCheckpoint(tmp_path / "saved", save_last=True)
    with caplog.at_level("INFO"):
        _, module = train(tmp_path, callback, saver, logger=logger, enable_checkpointing=True)
    found = callback.summary["interpolation"]
    path = tmp_path / "saved" / f"interpolated-alpha={found['alpha']:.2f}.ckpt"
    assert found["checkpoint"] == str(path) == callback.interpolated_path
    saved = torch.load(path, weights_only=True)["state_dict"]
    for name, value in module.state_dict().items():
        assert torch.equal(saved[name], value), name
    last = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(last["backbone.conv.weight"], saved["backbone.conv.weight"])
    text = next(item.message for item in caplog.records if "interpolated, alpha" in item.message)
    assert len(text.splitlines()) == 2 + len(ALPHAS)
    values = expected[found["alpha"]][1]
    assert f"{values['val_loss']:.4f}"[:-1] in text
    assert callback.summary["metrics"]["forgetting_cosine"]["last"]["value"] == pytest.approx(
        values["cosine"], abs=1e-5
    )
    assert callback.history[-1].scores["val_loss"] == pytest.approx(values["val_loss"], abs=1e-5)
    json.dumps(callback.summary, allow_nan=False)


def test_the_search_is_not_seen_by_other_callbacks_loggers_and_random_states(tmp_path):
    states = []

    class Other(Callback):
        validations = 0

        def on_validation_end(self, trainer, pl_module):
            self.validations += 1

        def on_train_end(self, trainer, pl_module):
            states.append((torch.get_rng_state(), [item.training for item in pl_module.modules()]))

    counts = []
    for options in ({"on_alarm": "log", "monitor": None}, {}):
        other, callback = Other(), monitor(**options)
        trainer, _ = train(tmp_path, callback, other)
        counts.append(other.validations)
        assert trainer.callbacks.count(other) == 1
    assert counts[0] == counts[1]
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert callback.summary["interpolation"]["alpha"] is not None


def test_an_alarm_before_the_end_only_warns(tmp_path):
    with pytest.warns(UserWarning, match="step 3: forgetting_cosine is"):
        trainer, _ = train(tmp_path, monitor(tolerance={"cosine": 0.001}, confirm=1))
    assert trainer.global_step == 9


def test_after_an_error_in_the_search_the_fine_tuned_weights_are_there(tmp_path, ends, monkeypatch):
    module = make()
    calls = []

    def fail(batch, batch_idx):
        calls.append(1)
        if module.trainer.global_step == 9 and not torch.equal(
            module.backbone.conv.weight, ends[1].backbone.conv.weight
        ):
            raise RuntimeError("broken")
        type(module).validation_step(module, batch, batch_idx)

    module.validation_step = fail
    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path, monitor(), module=module)
    for name, value in ends[1].state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
