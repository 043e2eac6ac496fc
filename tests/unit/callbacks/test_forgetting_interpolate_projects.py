"""Interpolating in other people's projects: averages, streams, odd modules, resumed runs; and what is refused."""

from __future__ import annotations

import copy
import pickle

import lightning.pytorch
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_transfer.callbacks.forgetting_interpolate import ALPHAS
from lightning_transfer.errors import CheckpointError
from tests.unit.callbacks.forgetting_toys import PROBE, Crash
from tests.unit.callbacks.interpolate_toys import TRAIN, VAL, Backbone, by_hand, make, monitor, tolerance_between, train

pytestmark = pytest.mark.filterwarnings("ignore:ForgettingMonitor, step")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The two ends, of a run that only watches; watching changes nothing."""
    _, end = train(tmp_path_factory.mktemp("ends"))
    return make(), end


@pytest.fixture(scope="module")
def expected(ends):
    return {alpha: by_hand(*ends, alpha) for alpha in ALPHAS}


# ---- in other people's projects --------------------------------------------------------------------------------------


def test_with_averaged_weights_the_average_is_the_fine_tuned_end(tmp_path):
    _, end = train(tmp_path, EMAWeightAveraging(decay=0.5))
    expected = {alpha: by_hand(make(), end, alpha) for alpha in ALPHAS}
    limit = tolerance_between(expected, 0.6, 0.7)
    callback = monitor(tolerance={"cosine": limit})
    saver = ModelCheckpoint(tmp_path / "ema")
    _, module = train(tmp_path, EMAWeightAveraging(decay=0.5), callback, saver, enable_checkpointing=True)
    best = callback.summary["interpolation"]["alpha"]
    assert best <= 0.6
    for row in callback.summary["interpolation"]["tried"]:
        assert row["readings"]["forgetting_cosine"] == pytest.approx(expected[row["alpha"]][1]["cosine"], abs=1e-5)
    saved = torch.load(callback.interpolated_path, weights_only=True)["state_dict"]
    for name, value in expected[best][0].state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, atol=1e-5, rtol=1e-5, msg=name)
        assert torch.equal(saved[name], module.state_dict()[name])


def test_the_last_reading_is_of_the_average(tmp_path):
    callback = monitor(on_alarm="log", monitor=None)
    _, end = train(tmp_path, EMAWeightAveraging(decay=0.5), callback)
    assert [report.step for report in callback.history] == [0, 3, 6, 9, 9]
    inputs = PROBE.tensors[0]
    with torch.no_grad():
        before, now = (module.eval().backbone(inputs).double() for module in (make(), end))
    expected = 1 - nn.functional.cosine_similarity(before, now).mean().item()
    readings = [report.readings["forgetting_cosine"].value for report in callback.history]
    assert readings[-1] == pytest.approx(expected, abs=1e-9)
    assert readings[-2] != pytest.approx(expected, abs=1e-4)


def test_an_average_that_would_overwrite_it_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="`EMAWeightAveraging` comes after ForgettingMonitor"):
        train(tmp_path, monitor(), EMAWeightAveraging(decay=0.5))


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_with_trainer_options(tmp_path, options):
    callback = monitor()
    train(tmp_path, callback, **options)
    assert callback.summary["interpolation"]["alpha"] is not None


def test_with_training_data_from_a_stream(tmp_path, expected):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([TRAIN[index] for index in range(len(TRAIN))])

    callback, module = monitor(), make()
    trainer = lightning.pytorch.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    torch.manual_seed(3)
    trainer.fit(module, DataLoader(Stream(), batch_size=8), DataLoader(VAL, batch_size=7))
    for row in callback.summary["interpolation"]["tried"]:
        assert row["score"] == pytest.approx(expected[row["alpha"]][1]["val_loss"], abs=1e-5)


def test_without_a_forward_the_backbones_batchnorm_is_computed(tmp_path):
    class NoForward(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = Backbone(), nn.Linear(8, 3)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = monitor(tolerance={"cosine": 0.1})
    _, module = train(tmp_path, callback, module=NoForward())
    assert callback.summary["interpolation"]["alpha"] < 1
    maps = module.backbone.conv(TRAIN.tensors[0]).detach()
    torch.testing.assert_close(module.backbone.norm.running_mean, maps.mean((0, 2, 3)))


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_metric_that_is_not_logged_is_said_after_the_first_validation(tmp_path):
    callback = monitor(monitor="val_los")
    with pytest.raises(MisconfigurationException, match=r"monitor='val_los'.*Did you mean `val_loss`.*val_acc"):
        train(tmp_path, callback)
    assert len(callback.history) == 1


def test_a_metric_that_another_callback_logs_is_said(tmp_path, ends):
    class Logs(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("val_other", 1.0)

    with pytest.warns(UserWarning, match="`val_other` was not logged by the module itself"):
        _, module = train(tmp_path, monitor(monitor="val_other"), Logs())
    assert torch.equal(module.backbone.conv.weight, ends[1].backbone.conv.weight)


def test_without_validation(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"this fit has none.*limit_val_batches"):
        train(tmp_path, monitor(), limit_val_batches=0)


def test_a_forward_that_takes_more_than_the_input_is_said_at_the_start(tmp_path):
    class More(type(make())):
        def forward(self, x, mask):
            return self.head(self.backbone(x))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0], None), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

    with pytest.raises(MisconfigurationException, match=r"`More.forward`.*missing 1 required.*input alone"):
        train(tmp_path, monitor(), module=More())
    callback = monitor(tolerance={"cosine": 1.9})
    train(tmp_path, callback, module=More(norm=False))  # without BatchNorm nothing needs it
    assert callback.summary["interpolation"]["alpha"] is not None


def test_what_is_new_must_be_known(tmp_path):
    class Inside(type(make())):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(self.backbone, self.head)
            del self.backbone, self.head

        def forward(self, x):
            return self.net(x)

    with pytest.raises(MisconfigurationException, match=r"must know what is pretrained.*`downstream_head="):
        train(tmp_path, monitor(backbone="net", head=None, metrics=("cosine",)), module=Inside())
    named = monitor(backbone="net", head=None, metrics=("cosine",), downstream_head="net.1")
    train(tmp_path, named, module=Inside())
    assert named.summary["interpolation"]["alpha"] is not None
    assert named.history[0].readings.keys() == {"forgetting_cosine"}


# ---- resume ----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    whole, resumed = monitor(), monitor()
    _, first = train(tmp_path, whole, ModelCheckpoint(tmp_path / "whole"), enable_checkpointing=True)
    saver = ModelCheckpoint(tmp_path / "part", save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, monitor(), saver, Crash(2), enable_checkpointing=True)
    last = tmp_path / "part" / "last.ckpt"
    again = ModelCheckpoint(tmp_path / "again", save_last=True)
    _, second = train(tmp_path, resumed, again, ckpt_path=last, enable_checkpointing=True)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert resumed.summary["interpolation"]["tried"] == whole.summary["interpolation"]["tried"]
    # The file came along, so the next resume needs the old folder no more.
    [old] = (tmp_path / "part").glob("forgetting_pretrained-*.pt")
    assert (tmp_path / "again" / old.name).read_bytes() == old.read_bytes()
    assert set(torch.load(old, weights_only=True)["weights"]) == {
        name for name in first.state_dict() if name.startswith("backbone.")
    }
    old.unlink()
    with pytest.raises(CheckpointError, match=rf"{old.name}.* missing; looked in .*part"):
        train(tmp_path, monitor(), saver, ckpt_path=last, enable_checkpointing=True)
    train(tmp_path, monitor(), again, ckpt_path=tmp_path / "again" / "last.ckpt", epochs=4, enable_checkpointing=True)


def test_a_run_that_began_with_another_action_has_nothing_to_interpolate_with(tmp_path):
    saver = ModelCheckpoint(tmp_path, save_last=True)
    train(tmp_path, monitor(on_alarm="log", monitor=None), saver, enable_checkpointing=True, epochs=1)
    with pytest.raises(CheckpointError, match="without on_alarm='interpolate'"):
        train(tmp_path, monitor(), ckpt_path=tmp_path / "last.ckpt")


def test_a_dry_run_leaves_no_file(tmp_path):
    callback = monitor()
    train(tmp_path, callback, fast_dev_run=True, enable_checkpointing=True)
    assert callback.summary["interpolation"]["tried"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_pickles_and_copies():
    again = pickle.loads(pickle.dumps(monitor()))  # noqa: S301
    assert (again.monitor, again.mode, again.interpolated_path) == ("val_loss", "min", "")
    assert copy.deepcopy(again).state_dict()["action"] == {"pretrained": None}
