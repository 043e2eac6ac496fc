"""Metrics, losses, views and checkpoints of the findings module. Oracles: scikit-learn, timm, the parts alone."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from lightning_transfer.errors import CheckpointError
from lightning_transfer.evaluation import Outputs, collect_outputs
from lightning_transfer.evaluation.scores import labels_of
from lightning_transfer.export.network import exported_network
from lightning_transfer.export.packages import ExportError
from lightning_transfer.modules import FindingsModule, TransferModule
from lightning_transfer.modules.losses import asymmetric_loss, binary_loss
from lightning_transfer.modules.views import views_of
from lightning_transfer.types import Batch, Record, Schema

FINDINGS = ("Edema", "Pleural Effusion", "Hernia")
SCHEMA = Schema(
    task="multilabel",
    classes=FINDINGS,
    counts={"train": {"Edema": 10, "Pleural Effusion": 2, "Hernia": 1}},
    negatives={"Edema": 30, "Pleural Effusion": 8, "Hernia": 999},
)
NAN = float("nan")


def _module(schema: Schema = SCHEMA, **arguments: Any) -> FindingsModule:
    torch.manual_seed(0)
    module = FindingsModule("timm/test_resnet", weights="random", **arguments)
    module.use_schema(schema)
    module.configure_model()
    return module


def _trainer() -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, max_epochs=1, default_root_dir="unused",
    )  # fmt: skip


def _batches(target: torch.Tensor, channels: int = 3) -> DataLoader[Any]:
    inputs = torch.randn(len(target), channels, 64, 64, generator=torch.Generator().manual_seed(1))
    parts = [Batch(inputs[i : i + 4], target[i : i + 4], torch.arange(i, i + 4)) for i in range(0, len(target), 4)]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def _logits(module: FindingsModule, loader: DataLoader[Any]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([module.eval()(batch.input) for batch in loader])


def _target() -> torch.Tensor:
    target = (torch.rand(16, 3, generator=torch.Generator().manual_seed(3)) < 0.4).float()
    target[::5, 1], target[1::5, 1] = NAN, 0.7  # missing, and uncertain
    target[:, 2] = 0.0
    return target


def test_each_findings_auroc_is_scikit_learns_and_undefined_ones_are_left_out() -> None:
    module, loader = _module(), _batches(_target())
    logged = _trainer().validate(module, loader, verbose=False)[0]
    preds, expected = _logits(module, loader), []
    for column in range(2):
        known = (_target()[:, column] == 0) | (_target()[:, column] == 1)
        expected.append(roc_auc_score(_target()[known, column], preds[known, column]))
    assert logged["val_auroc_Edema"] == pytest.approx(expected[0], abs=1e-6)
    assert logged["val_auroc_Pleural Effusion"] == pytest.approx(expected[1], abs=1e-6)
    assert "val_auroc_Hernia" not in logged
    assert logged["val_auroc"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_undefined_everywhere_is_nan_and_said() -> None:
    with pytest.warns(UserWarning, match="`val_auroc` is undefined"):
        logged = _trainer().validate(_module(), _batches(torch.zeros(4, 3)), verbose=False)[0]
    assert np.isnan(logged["val_auroc"])


def test_one_validation_forgets_the_one_before() -> None:
    module, trainer = _module(), _trainer()
    first = trainer.validate(module, _batches(_target()), verbose=False)[0]
    trainer.validate(module, _batches(_target().flip(0)), verbose=False)
    assert trainer.validate(module, _batches(_target()), verbose=False)[0] == first


def test_binary_and_exclusive_classes_have_an_auroc_too() -> None:
    binary = _module(Schema(task="binary", classes=("none", "covid")))
    target = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])
    logged, preds = _trainer().validate(binary, _batches(target), verbose=False)[0], _logits(binary, _batches(target))
    assert logged["val_auroc"] == pytest.approx(roc_auc_score(target, preds[:, 0]), abs=1e-6)
    assert binary.findings == ("covid",)

    several = _module(Schema(task="multiclass", classes=("a", "b", "none"), negative_class="none"))
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 2, 2])
    logged, preds = _trainer().validate(several, _batches(labels), verbose=False)[0], _logits(several, _batches(labels))
    probs = preds.double().softmax(1)
    assert logged["val_auroc_a"] == pytest.approx(roc_auc_score(labels == 0, probs[:, 0]), abs=1e-6)
    assert logged["val_auroc"] == pytest.approx(roc_auc_score(labels != 2, 1 - probs[:, 2]), abs=1e-6)

    without = _module(Schema(task="multiclass", classes=("a", "b", "c")))
    logged = _trainer().validate(without, _batches(labels), verbose=False)[0]
    each = [logged[f"val_auroc_{name}"] for name in "abc"]
    assert logged["val_auroc"] == pytest.approx(np.mean(each), abs=1e-6)


def test_losses_reach_the_module() -> None:
    module = _module(
        loss="asymmetric", class_weights=[2.0, 1.0, 5.0], gamma_negative=3.0, gamma_positive=1.0, margin=0.1
    )
    preds, target = torch.randn(16, 3), _target()
    weight = torch.tensor([[1.0, 2.0], [1.0, 1.0], [1.0, 5.0]])
    expected = asymmetric_loss(preds, target, weight=weight, gamma_negative=3.0, gamma_positive=1.0, margin=0.1)
    torch.testing.assert_close(module.loss(preds, target), expected)
    focal = _module(loss="focal").loss(preds, target)
    torch.testing.assert_close(focal, binary_loss(preds, target, focal_gamma=2.0))


def test_balanced_weights_come_from_the_schema_and_have_a_limit() -> None:
    module = _module(class_weights="balanced", max_positive_weight=20)
    weight = module.get_buffer("_weight")
    torch.testing.assert_close(weight[:2], torch.tensor([[40 / 60, 40 / 20], [10 / 16, 10 / 4]]))
    assert (weight[2, 1] / weight[2, 0]).item() == pytest.approx(20)
    lacking = Schema(task="multilabel", classes=FINDINGS, counts={"train": {"Edema": 3, "Hernia": 1}})
    with pytest.raises(MisconfigurationException, match=r"not so for `Edema`, `Pleural Effusion`, `Hernia`"):
        _module(lacking, class_weights="balanced")
    # Restored for prediction: no training split, and no loss to weigh.
    assert _module(Schema(task="multilabel", classes=FINDINGS), class_weights="balanced").get_buffer("_weight") is None


@pytest.mark.parametrize(("arguments", "message"), [
    ({"gamma_negative": -1.0}, "got -1.0 and 0.0"), ({"margin": 1.0}, "got 1.0"),
    ({"max_positive_weight": 0.2}, "got 0.2"), ({"test_time_views": ["flip"]}, "Unknown test-time view `flip`"),
])  # fmt: skip
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FindingsModule("timm/test_resnet", weights="random", **arguments)


def test_asymmetric_is_for_labels_that_do_not_exclude_each_other() -> None:
    with pytest.raises(MisconfigurationException, match="multiclass data"):
        _module(Schema(task="multiclass", classes=("a", "b")), loss="asymmetric")
    with pytest.raises(MisconfigurationException, match="label smoothing"):
        _module(loss="asymmetric", label_smoothing=0.1)


def test_views_are_averaged_as_probabilities_and_the_mode_stays() -> None:
    plain, module = _module(), _module(test_time_views=["shift", "horizontal_flip"])
    module.load_state_dict(plain.state_dict())
    [batch] = list(_batches(torch.zeros(4, 3)))
    with torch.no_grad():
        output = module.eval().predict_step(batch, 0)
        seen = [plain.eval()(view) for view in views_of(batch.input, ["shift", "horizontal_flip"])]
    assert len(seen) == 6
    torch.testing.assert_close(output.logits.sigmoid(), torch.stack(seen).sigmoid().mean(0))
    assert output.features.shape == (4, module.card.num_features)
    with pytest.raises(MisconfigurationException, match="needs pictures"):
        module.predict_step(Batch({"input_ids": torch.zeros(1, 2)}, None, torch.arange(1)), 0)


def test_a_checkpoint_restores_channels_views_and_loss(tmp_path: Path) -> None:
    module = _module(in_channels=1, test_time_views=["scale"], loss="asymmetric", margin=0.2)
    trainer = _trainer()
    loader = _batches(torch.zeros(4, 3), channels=1)
    trainer.validate(module, loader, verbose=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(again, FindingsModule)
    assert (again.loss_name, again.margin, again.test_time_views) == ("asymmetric", 0.2, ("scale",))
    assert again.card.input_size == (1, *(module.card.input_size or ())[1:])
    before, after = (collect_outputs(item, loader, show_progress=False) for item in (module, again))
    assert torch.equal(before.logits, after.logits)
    with pytest.raises(ExportError, match=r"averages over views.*scale"):
        exported_network(again)
    with pytest.raises(CheckpointError):
        TransferModule.from_checkpoint(tmp_path / "other.ckpt")


def test_a_fit_keeps_its_monitor_and_learns_from_uncertain_labels() -> None:
    module = _module(loss="asymmetric", class_weights="balanced")
    before = module.head[0].weight.detach().clone()  # type: ignore[index, union-attr]
    trainer = _trainer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, _batches(_target()), _batches(_target()))
    assert module.monitor in trainer.callback_metrics
    assert not torch.equal(before, module.head[0].weight)  # type: ignore[index, union-attr]


def test_uncertain_labels_are_never_the_truth_of_an_evaluation() -> None:
    outputs = Outputs(
        torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor([[1.0, 0.7, 0.0], [NAN, 0.0, 0.2]]), torch.arange(2)
    )
    np.testing.assert_array_equal(labels_of(outputs, SCHEMA), [[1, np.nan, 0], [np.nan, 0, np.nan]])
    binary = Outputs(torch.zeros(3, 1), torch.zeros(3, 1), torch.tensor([1.0, 0.7, NAN]), torch.arange(3))
    assert labels_of(binary, Schema(task="binary", classes=("a", "b"))).tolist() == [1, -1, -1]


def test_the_schema_counts_negatives_of_the_training_split() -> None:
    from lightning_transfer.data.schema import build_schema

    rows = [
        Record("1", None, (1.0, 0.0), "train"),
        Record("2", None, (0.0, None), "train"),
        Record("3", None, (0.0, 0.4), "train"),
        Record("4", None, (0.0, 0.0), "val"),
    ]
    schema = build_schema(rows, ("x", "y"), "multilabel", negative_class=None, sampling=None, preprocessing={})
    assert schema.negatives == {"x": 2, "y": 1}
    assert Schema.from_dict(schema.to_dict()) == schema
