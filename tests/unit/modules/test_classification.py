"""Tasks, losses and validation metrics of the classification module. Oracle: scikit-learn."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import f1_score, roc_auc_score
from torch.utils.data import DataLoader

from lightning_transfer.modules import ClassificationModule
from lightning_transfer.types import Batch, Schema

CLASSES = ("good", "pit", "crack")


def _module(schema: Schema, **arguments: object) -> ClassificationModule:
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random", **arguments)
    module.use_schema(schema)
    module.configure_model()
    return module


def _validate(module: ClassificationModule, target: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
    inputs = torch.randn(len(target), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    batches = [Batch(inputs[i : i + 4], target[i : i + 4], torch.arange(i, i + 4)) for i in range(0, len(target), 4)]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    logged = trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)[0]  # type: ignore[arg-type]
    with torch.no_grad():
        return dict(logged), module.eval()(inputs)


def test_multiclass_metrics_match_scikit_learn() -> None:
    module = _module(Schema(task="multiclass", classes=CLASSES, negative_class="good"))
    target = torch.tensor([0, 0, 0, 1, 1, 2, 2, 0, 0, 1, 2, 0])
    logged, preds = _validate(module, target)
    assert logged["val_macro_f1"] == pytest.approx(f1_score(target, preds.argmax(1), average="macro"), abs=1e-6)
    assert logged["val_accuracy"] == pytest.approx((preds.argmax(1) == target).float().mean().item())
    assert logged["val_auroc"] == pytest.approx(roc_auc_score(target != 0, 1 - preds.softmax(1)[:, 0]), abs=1e-6)
    assert logged["val_loss"] == pytest.approx(torch.nn.functional.cross_entropy(preds, target).item(), rel=1e-5)


def test_binary_metrics_match_scikit_learn() -> None:
    module = _module(Schema(task="binary", classes=("good", "bad")))
    target = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])
    logged, preds = _validate(module, target)
    hard = (preds.squeeze(1).sigmoid() >= 0.5).long()
    assert logged["val_macro_f1"] == pytest.approx(f1_score(target.long(), hard, average="macro"), abs=1e-6)
    assert logged["val_auroc"] == pytest.approx(roc_auc_score(target, preds.squeeze(1)), abs=1e-6)


def test_multilabel_ignores_missing_labels() -> None:
    module = _module(Schema(task="multilabel", classes=("pit", "crack")))
    target = torch.tensor([[1.0, 0.0], [0.0, float("nan")], [1.0, 1.0], [float("nan"), 0.0]] * 2)
    logged, preds = _validate(module, target)
    expected = []
    for column in range(2):
        known = ~target[:, column].isnan()
        expected.append(f1_score(target[known, column], (preds[known, column] > 0).long(), zero_division=0))
    assert logged["val_macro_f1"] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_class_weights_and_weighted_sampler_together_are_refused() -> None:
    schema = Schema(
        task="multiclass", classes=CLASSES, sampling="weighted", counts={"train": dict.fromkeys(CLASSES, 3)}
    )
    with pytest.raises(MisconfigurationException, match=r"class_weights: balanced.*sampler: weighted"):
        _module(schema, class_weights="balanced")


def test_a_class_weight_for_each_class() -> None:
    with pytest.raises(MisconfigurationException, match="has 2 numbers, and there are 3 classes"):
        _module(Schema(task="multiclass", classes=CLASSES), class_weights=[1.0, 2.0])


def test_balanced_weights_reach_the_loss() -> None:
    schema = Schema(task="multiclass", classes=CLASSES, counts={"train": {"good": 6, "pit": 2, "crack": 1}})
    module = _module(schema, class_weights="balanced")
    preds, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 0])
    weight = torch.tensor([9 / 18, 9 / 6, 9 / 3])
    torch.testing.assert_close(
        module.loss(preds, target), torch.nn.functional.cross_entropy(preds, target, weight=weight)
    )


def test_pieces_weigh_in_the_loss_where_records_are_fed_in_pieces() -> None:
    counts = {"train": {"good": 1, "pit": 1, "crack": 1}}
    schema = Schema(task="multiclass", classes=CLASSES, counts=counts, piece_counts={"good": 6, "pit": 2, "crack": 1})
    preds, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 0])
    expected = torch.nn.functional.cross_entropy(preds, target, weight=torch.tensor([9 / 18, 9 / 6, 9 / 3]))
    torch.testing.assert_close(_module(schema, class_weights="balanced").loss(preds, target), expected)
    prior = torch.log(torch.tensor([6 / 9, 2 / 9, 1 / 9]))
    expected = torch.nn.functional.cross_entropy(preds + prior, target)
    torch.testing.assert_close(_module(schema, logit_adjustment=1.0).loss(preds, target), expected)


def test_logit_adjustment_reaches_the_binary_loss() -> None:
    schema = Schema(task="binary", classes=("good", "bad"), counts={"train": {"good": 9, "bad": 1}})
    module = _module(schema, logit_adjustment=1.0)
    loss = module.loss(torch.zeros(2, 1), torch.tensor([1.0, 0.0]))
    expected = torch.nn.functional.binary_cross_entropy(torch.full((2,), 0.1), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [({"label_smoothing": 1.5}, "got 1.5"), ({"focal_gamma": -1.0}, "got -1.0")],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], value: str) -> None:
    with pytest.raises(ValueError, match=value):
        ClassificationModule("timm/test_resnet", weights="random", **arguments)


def test_unlabelled_batches_are_refused_in_training() -> None:
    module = _module(Schema(task="multiclass", classes=CLASSES))
    with pytest.raises(MisconfigurationException, match="predict"):
        module.training_step(Batch(torch.zeros(1, 3, 64, 64), None, torch.arange(1)), 0)
