"""What the meter reads, and which limits count; in real fits see `test_forgetting_monitor.py`."""

from __future__ import annotations

from types import SimpleNamespace

import lightning.pytorch
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from sklearn.linear_model import LogisticRegression
from torch import nn

from lightning_transfer.callbacks.forgetting_meter import Meter
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.callbacks.forgetting_reading import FeatureReader
from lightning_transfer.errors import CheckpointError
from tests.unit.callbacks.forgetting_toys import PROBE, make_module, monitor, source_head, train

BATCHES = [torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


class Module(lightning.pytorch.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))


def trainer(tmp_path=None, rank=0, heard=None):
    def broadcast(value):
        return value if heard is None else heard

    return SimpleNamespace(
        is_global_zero=rank == 0,
        precision_plugin=lightning.pytorch.plugins.Precision(),
        strategy=SimpleNamespace(broadcast=broadcast),
        checkpoint_callbacks=[],
        ckpt_path=None,
        default_root_dir=str(tmp_path),
    )


def meter():
    probes = [Probe("a", False, BATCHES, None, "ab" * 32), Probe("b", True, BATCHES, None, "cd" * 32)]
    return Meter(FeatureReader("backbone"), probes, {"a": ("cosine", "l2"), "b": ("l2",)})


def test_readings_are_of_the_weights_as_they_are():
    module, measured = Module(), meter()
    readings, name, sha256 = measured.take_reference(trainer(), module, ())
    assert {reading.value for reading in readings.values()} == {0.0}
    assert name == f"forgetting_reference-{sha256[:12]}.safetensors" == measured.file.name
    assert measured.cost > 0
    x = torch.cat(BATCHES)
    before = module.backbone[0](x)
    with torch.no_grad():
        module.backbone[0].weight.add_(0.5)
    found = measured.read(trainer(), module)
    assert found.keys() == {"forgetting_a_cosine", "forgetting_a_l2", "drift_b_l2"}
    expected = (module.backbone[0](x) - before).norm(dim=1).mean().item()
    assert found["forgetting_a_l2"].value == pytest.approx(expected, rel=1e-5) == found["drift_b_l2"].value


def test_limits_with_and_without_stand_ins():
    tolerance = {"cosine": 0.1, "l2": 0.2, "cka": 0.3}
    own = {"forgetting_a_cosine": 0.1, "forgetting_a_l2": 0.2}
    assert meter().limits(tolerance, proxies=False) == own
    assert meter().limits(tolerance, proxies=True) == {**own, "drift_b_l2": 0.2}


def test_other_ranks_take_what_rank_0_read():
    assert meter().read(trainer(rank=1, heard={"forgetting_a_l2": "rank 0's"}), Module()) == {
        "forgetting_a_l2": "rank 0's"
    }


def test_a_tolerance_of_what_cannot_be_shown():
    probe = Probe("", False, [torch.ones(6, 3)], None, "ab" * 32)
    same = Meter(FeatureReader("backbone"), [probe], {"": ("cka",)})
    with pytest.raises(MisconfigurationException, match=r"forgetting_cka.*do not vary"):
        same.take_reference(trainer(), Module(), ("forgetting_cka",))


def test_all_ranks_raise_where_the_reference_is_missing(tmp_path):
    for given in (trainer(tmp_path), trainer(tmp_path, rank=1, heard="is missing, says rank 0")):
        with pytest.raises(CheckpointError, match="is missing"):
            meter().load_reference(given, "gone.safetensors", "ab" * 32)


def test_the_source_accuracy_of_any_check_is_that_of_the_weights_it_saw(tmp_path):
    """Oracle: the source head on the probe, by hand, after each epoch."""
    module, hits = make_module(lr=0.5), {}
    inputs, target = PROBE.tensors
    with torch.no_grad():
        fitted = LogisticRegression(C=1e4, max_iter=1000).fit(module.eval().backbone(inputs).numpy(), target.numpy())
    head = nn.Linear(8, 3).requires_grad_(False)
    head.weight.copy_(torch.from_numpy(fitted.coef_))
    head.bias.copy_(torch.from_numpy(fitted.intercept_))
    module.train()

    class ByHand(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            hits[trainer.global_step] = accuracy(pl_module)

    def accuracy(module):
        modes = [(item, item.training) for item in module.modules()]
        module.eval()
        with torch.no_grad():
            right = (head(module.backbone(inputs)).argmax(1) == target).float().mean().item()
        for item, training in modes:
            item.training = training
        return right

    first = accuracy(module)
    callback = monitor(head=head, metrics=("accuracy", "cosine"))
    train(tmp_path, callback, ByHand(), module=module)
    assert len(set(hits.values()) | {first}) > 1, "nothing changed, so nothing is shown"
    for step, right in hits.items():
        found = callback.source_scores(step)["source_accuracy"]
        assert found["before"].value == pytest.approx(first, abs=1e-6)
        assert found["after"].value == pytest.approx(right, abs=1e-6)
        assert found["after"].n == 20
        assert found["chance"].value == pytest.approx(7 / 20)  # 20 labels 0, 1, 2 in turn: seven of class 0
    assert callback.source_scores(4)["source_accuracy"]["after"].value is None


def test_there_is_no_source_accuracy_without_head_labels_or_the_metric(tmp_path):
    for callback in (monitor(metrics=("cosine",)), monitor(head=source_head(), metrics=("kl",)),
                     monitor("noise", head=source_head(), metrics=("cosine",))):  # fmt: skip
        train(tmp_path, callback, max_epochs=1)
        assert callback.source_scores(3) == {}
    callback = monitor({"old": PROBE, "more": PROBE}, head=source_head(), metrics=("accuracy",))
    train(tmp_path, callback, max_epochs=1)
    assert list(callback.source_scores(3)) == ["source_old_accuracy", "source_more_accuracy"]
