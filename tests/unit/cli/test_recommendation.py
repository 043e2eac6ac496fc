from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR
from lightning_transfer.cli.recommendation import configured_strategy, data_facts, device_memory
from lightning_transfer.types import BackboneCard, Schema

SCHEMA = Schema(
    task="multiclass", classes=("a", "b"), counts={"train": {"a": 5, "b": 7}, "test": {"a": 9}}, num_groups={"train": 3}
)


def module(backbone: nn.Module, pretraining: str = "ImageNet", learns_from: str = "all") -> nn.Module:
    made: Any = nn.Module()
    made.backbone = backbone
    made.card = BackboneCard(name="x/y", architecture="x/y", pretraining=pretraining, num_parameters=12)
    made.learns_from = learns_from
    return made


def test_the_numbers_of_the_training_split_count() -> None:
    facts = data_facts(module(nn.Linear(2, 2)), SCHEMA, errors=("leak",))
    assert facts is not None
    assert facts.counts == {"a": 5, "b": 7}
    assert (facts.num_groups, facts.num_parameters, facts.errors) == (3, 12, ("leak",))
    assert (facts.pretrained, facts.transformer) == (True, False)


def test_attention_makes_a_transformer_and_no_pretraining_is_seen() -> None:
    facts = data_facts(module(nn.TransformerEncoderLayer(4, 1), "none"), SCHEMA)
    assert facts is not None
    assert (facts.pretrained, facts.transformer) == (False, True)


@pytest.mark.parametrize(
    ("made", "schema"),
    [
        (nn.Linear(1, 1), SCHEMA),
        (module(nn.Linear(1, 1)), None),
        (module(nn.Linear(1, 1)), Schema(task="multiclass", classes=("a", "b"), counts={"train": {"a": 0}})),
        (module(nn.Linear(1, 1), learns_from="negative"), SCHEMA),
    ],
)
def test_nothing_is_recommended_without_ground(made: nn.Module, schema: Schema | None) -> None:
    assert data_facts(made, schema) is None


@pytest.mark.parametrize(
    ("callbacks", "strategy"),
    [
        ([], "full"),
        ([DiscriminativeLR()], "full"),
        ([DiscriminativeLR(), BackboneFreezeUnfreeze("lp_ft")], "lp_ft"),
        ([BackboneFreezeUnfreeze({0: 0, 3: "all"})], "a schedule of its own"),
    ],
)
def test_the_config_is_read_from_its_callbacks(callbacks: list[Any], strategy: str) -> None:
    trainer: Any = SimpleNamespace(callbacks=callbacks)
    assert configured_strategy(trainer, nn.Linear(1, 1)) == strategy


def test_adapters_are_seen() -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"]))
    trainer: Any = SimpleNamespace(callbacks=[])
    assert configured_strategy(trainer, nn.Sequential(wrapped)) == "peft"


def test_memory_of_a_device() -> None:
    found = device_memory(torch.device("cpu"))
    assert found is None or found > 2**28
    assert device_memory(torch.device("meta")) is None
