"""AUROC of the old task's findings: labels and patients of a probe, losses against scikit-learn, and a real fit."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_transfer.callbacks import ForgettingMonitor
from lightning_transfer.callbacks.forgetting_findings import (
    Findings,
    SourceFindings,
    auroc_losses,
    find_findings,
    source_auroc,
)
from lightning_transfer.cli.facts import source_lines
from lightning_transfer.data.loading import Collate, RecordDataset
from lightning_transfer.metrics.bootstrap import Interval
from lightning_transfer.modules import FindingsModule
from lightning_transfer.types import Record, Schema

NAN = float("nan")


def _toy(n: int = 120, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Findings]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.4, 0.3, 0.0]).astype(float)
    before = torch.tensor(labels * 2 + rng.normal(size=(n, 3)))
    now = torch.tensor(labels * [2, 0, 0] + rng.normal(size=(n, 3)))
    labels[rng.random((n, 3)) < 0.1] = np.nan
    return before, now, Findings(labels, ("edema", "mass", "hernia"), tuple(f"p{place // 3}" for place in range(n)))


def _auroc(scores: torch.Tensor, findings: Findings, place: int) -> float:
    known = ~np.isnan(findings.labels[:, place])
    return float(roc_auc_score(findings.labels[known, place], scores[known, place]))


def test_each_loss_is_scikit_learns_difference_and_the_mean_is_over_what_is_defined() -> None:
    before, now, findings = _toy()
    found = auroc_losses(before, now, findings)
    assert set(found) == {"auroc", "auroc_edema", "auroc_mass"}
    each = [_auroc(before, findings, place) - _auroc(now, findings, place) for place in (0, 1)]
    assert found["auroc_edema"].value == pytest.approx(each[0])
    assert found["auroc_mass"].value == pytest.approx(each[1])
    assert found["auroc"].value == pytest.approx(np.mean(each))
    assert found["auroc_mass"].low is not None
    assert found["auroc_mass"].low > 0.2
    assert found["auroc"].num_groups == 40
    assert source_auroc(before, findings)["auroc_mass"].value == pytest.approx(_auroc(before, findings, 1))


def test_the_same_scores_lose_exactly_nothing() -> None:
    before, _, findings = _toy()
    for item in auroc_losses(before, before, findings).values():
        assert (item.value, item.low, item.high) == (0.0, 0.0, 0.0)


def test_patients_are_drawn() -> None:
    before, now, findings = _toy()
    alone = Findings(findings.labels, findings.names, (None,) * 120)
    one = Findings(findings.labels, findings.names, ("p",) * 120)
    assert auroc_losses(before, now, alone)["auroc"].num_groups == 120
    assert auroc_losses(before, now, one)["auroc"].low is None


def test_what_cannot_be_said_has_a_reason() -> None:
    before, now, findings = _toy()
    [item] = auroc_losses(before[:, :2], now[:, :2], findings).values()
    assert item.reason == "the head has 2 scores, and the probe labels of 3 findings"
    nobody = Findings(np.zeros((120, 3)), findings.names, findings.groups)
    [item] = auroc_losses(before, now, nobody).values()
    assert item.reason == "no finding has both positives and negatives in the probe"


def test_records_name_patients_in_whatever_order_and_pieces_they_are_read() -> None:
    records = [Record(str(place), None, (1.0, None), group=f"p{place // 2}") for place in range(6)]
    whole = RecordDataset(records, lambda record: torch.ones(2), ("x", "y"), "multilabel")
    dataset = Subset(whole, [5, 2, 0])
    batches = list(DataLoader(dataset, batch_size=2, collate_fn=Collate()))
    module = type("Module", (), {"schema": Schema(task="multilabel", classes=("Pleural Effusion", "a/b"))})
    found = find_findings(dataset, batches, module)
    assert found is not None
    assert found.groups == ("p2", "p1", "p0")
    assert found.names == ("Pleural_Effusion", "a_b")
    np.testing.assert_array_equal(found.labels, [[1, np.nan]] * 3)


def test_other_labels_are_no_findings() -> None:
    x = torch.ones(2, 3)
    assert find_findings(None, [(x, torch.tensor([1, 0]))], None) is None
    assert find_findings(None, [(x, torch.tensor([1.0, 3.0]))], None) is None
    assert find_findings(None, [(x, torch.tensor([1.0]))], None) is None
    assert find_findings(None, [x], None) is None
    assert find_findings(None, [(x, torch.ones(2, 2)), (x, torch.ones(2, 3))], None) is None
    soft = find_findings(None, [(x, torch.tensor([0.7, 1.0]))], None)
    assert soft is not None
    assert soft.names == ("finding_0",)
    np.testing.assert_array_equal(soft.labels, [[np.nan], [1.0]])


def test_before_and_after_are_said_with_their_paired_change() -> None:
    source = SourceFindings(Interval(0.9, 0.85, 0.95, 40), "forgetting_auroc")
    found = source.at({"forgetting_auroc": Interval(0.1, 0.05, 0.15, 40, 20)})
    facts = {f"source_auroc_{part}": item for part, item in found.items()}
    assert list(source_lines(facts)) == [
        "Source AUROC: 0.900 [0.850, 0.950] before, 0.800 after, changed by -0.100 [-0.150, -0.050]"
    ]
    missing = source.at(None)
    assert missing["after"].value is None
    facts = {f"source_auroc_{part}": item for part, item in missing.items()}
    assert "n/a (not measured with these weights) after (chance 0.500)" in next(source_lines(facts))


class _Source(Dataset):  # type: ignore[type-arg]
    """Pictures of the source site, whose brightness tells a finding, with records that name patients."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.target = (torch.rand(48, 2, generator=generator) < 0.5).float()
        self.target[::7, 1] = NAN
        shade = self.target.nan_to_num(0.5)[:, :1, None, None]
        self.images = torch.randn(48, 3, 32, 32, generator=generator) + shade

    def __len__(self) -> int:
        return 48

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[place], self.target[place]


def _fit(monitor: ForgettingMonitor, folder: Path, epochs: int = 2) -> FindingsModule:
    torch.manual_seed(0)
    module = FindingsModule(
        "timm/test_resnet", weights="random", optimizer=lambda params: torch.optim.SGD(params, lr=0.5)
    )
    module.use_schema(Schema(task="multilabel", classes=("Edema", "Mass")))
    data = _Source()
    # The new site, where the labels mean the opposite.
    trained = TensorDataset(data.images, 1 - data.target.nan_to_num(0.5))
    loader: DataLoader[object] = DataLoader(trained, batch_size=12, collate_fn=_batch)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[monitor], logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module


def _batch(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> object:
    from lightning_transfer.types import Batch

    images, target = (torch.stack(column) for column in zip(*rows, strict=True))
    return Batch(images, target, torch.arange(len(rows)))


def test_a_fit_forgets_by_finding(tmp_path: Path) -> None:
    monitor = ForgettingMonitor(_Source(), head="head", metrics=("auroc", "cosine"), max_overhead=None)
    _fit(monitor, tmp_path)
    first, last = monitor.history[0], monitor.history[-1]
    assert set(first.readings) == {
        "forgetting_auroc", "forgetting_auroc_Edema", "forgetting_auroc_Mass", "forgetting_cosine",
    }  # fmt: skip
    assert all(reading.value == 0 for reading in first.readings.values())
    assert last.readings["forgetting_auroc"].value != 0
    scores = monitor.source_scores(last.step)
    assert list(scores)[:2] == ["source_auroc", "source_auroc_Edema"]
    both = scores["source_auroc_Edema"]
    assert both["before"].value is not None
    assert both["after"].value == pytest.approx(
        both["before"].value - (last.readings["forgetting_auroc_Edema"].value or 0)
    )


def test_a_probe_without_such_labels_is_refused(tmp_path: Path) -> None:
    bare = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    monitor = ForgettingMonitor(bare, head="head", metrics=("auroc",), max_overhead=None)
    with pytest.raises(MisconfigurationException, match="'auroc' needs a probe of source data with labels of 0 and 1"):
        _fit(monitor, tmp_path)
