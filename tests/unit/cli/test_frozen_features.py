"""The frozen backbone is loaded once, asked once a split, and never where nobody asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import lightning_transfer.backbones
from lightning_transfer.cli.frozen_features import FrozenFeatures
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import Batch

POINTS = {"train": torch.arange(12.0).reshape(6, 2), "test": -torch.arange(8.0).reshape(4, 2)}


class _Data:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def records_for(self, split: str) -> list[int]:
        return list(range(len(POINTS.get(split, ()))))

    def ordered_dataloader(self, split: str, only: Any = None) -> list[Batch]:
        self.asked.append((split, only))
        places = torch.tensor(sorted(self.records_for(split) if only is None else only))
        return [Batch(POINTS[split][places], places.float(), places)]


def _cli(**model: Any) -> Any:
    trainer = SimpleNamespace(progress_bar_callback=None, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    return SimpleNamespace(resolved={"model": {"backbone": "toy", **model}}, datamodule=_Data(), trainer=trainer)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each load."""
    found: list[dict[str, Any]] = []

    def load(name: str, **options: Any) -> Any:
        found.append({"name": name, **options})
        return nn.Identity(), None

    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", load)
    return found


def test_each_split_is_read_once(loads: list[dict[str, Any]]) -> None:
    cli = _cli(weights="w.pth", card=None, in_channels=1)
    frozen = FrozenFeatures(cli)
    assert loads == []
    assert frozen
    torch.testing.assert_close(frozen.read("train").features, POINTS["train"])
    some = frozen.read("train", [4, 1])
    assert some.index.tolist() == [1, 4]
    torch.testing.assert_close(some.features, POINTS["train"][[1, 4]])
    assert frozen.read("train", range(6)).index.tolist() == list(range(6))
    assert cli.datamodule.asked == [("train", None)]
    assert loads == [{"name": "toy", "weights": "w.pth", "in_channels": 1}]


def test_what_was_not_read_before_is_read_then(loads: list[dict[str, Any]]) -> None:
    frozen = FrozenFeatures(_cli())
    assert frozen.read("test", [2]).index.tolist() == [2]
    assert frozen.read("test", [0, 2]).index.tolist() == [0, 2]
    assert frozen.read("test").index.tolist() == [0, 1, 2, 3]


def test_a_backbone_that_cannot_be_had_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **options: Any) -> Any:
        raise BackboneError("no hub")

    monkeypatch.setattr(lightning_transfer.backbones, "load_backbone", load)
    frozen = FrozenFeatures(_cli())
    with pytest.warns(UserWarning, match="baselines on the frozen backbone are left out: no hub") as said:
        assert [bool(frozen), bool(frozen)] == [False, False]
    assert len(said) == 1
    with pytest.raises(BackboneError, match="no frozen backbone"):
        frozen.read("test")
