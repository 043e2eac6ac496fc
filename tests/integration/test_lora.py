"""`lora` as an option of our modules: checkpoints, the callbacks, the plan and the baseline from scratch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR, ForgettingMonitor
from lightning_transfer.backbones import LoraOptions, load_backbone, merged
from lightning_transfer.cli.plan_facts import stages_and_groups
from lightning_transfer.cli.recommendation import configured_strategy
from lightning_transfer.errors import BackboneError, CheckpointError
from lightning_transfer.evaluation.scratch import random_twin
from lightning_transfer.modules import ClassificationModule, TransferModule
from lightning_transfer.types import Batch, Schema
from tests.unit.callbacks.callback_toys import Watch

pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SCHEMA = Schema(task="multiclass", classes=("even", "odd"), counts={"train": {"even": 8, "odd": 8}})
LAYER = re.compile(r"\.layer\.(\d)\.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT of three blocks; weights larger than the default, so that inputs can be told apart."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=40,
        max_position_embeddings=24, initializer_range=0.3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def batches() -> list[Batch]:
    found = []
    for number in range(4):
        ids = torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(number))
        mask = torch.ones(4, 7, dtype=torch.long)
        mask[number, 5:] = 0
        found.append(Batch({"input_ids": ids, "attention_mask": mask}, ids[:, 0] % 2, torch.arange(4) + 4 * number))
    return found


def loader() -> DataLoader[Batch]:
    return DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]


def module_of(folder: Path, **options: Any) -> ClassificationModule:
    torch.manual_seed(1)
    given = {"lora": LoraOptions(rank=2), "optimizer": lambda params: torch.optim.AdamW(params, lr=0.02)} | options
    module = ClassificationModule(str(folder), **given)
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def fit(module: ClassificationModule, callbacks: list[Any], epochs: int = 4, **options: Any) -> Trainer:
    torch.manual_seed(2)
    trainer = Trainer(
        max_epochs=epochs, callbacks=callbacks, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=any(isinstance(item, ModelCheckpoint) for item in callbacks),
    )  # fmt: skip
    trainer.fit(module, loader(), **options)
    return trainer


def features(backbone: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([backbone.eval()(batch.input) for batch in batches()])


def test_a_checkpoint_alone_brings_the_adapters_back(folder: Path, tmp_path: Path) -> None:
    module = module_of(folder)
    fit(module, []).save_checkpoint(tmp_path / "model.ckpt")
    pretrained = features(load_backbone(str(folder))[0])
    shutil.rmtree(folder)
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert type(again) is ClassificationModule
    assert again.lora == LoraOptions(rank=2)
    found = features(again.backbone)
    assert torch.equal(found, features(module.backbone))
    assert (found - pretrained).abs().max() > 1e-2
    torch.testing.assert_close(features(merged(again.backbone)), found, rtol=1e-4, atol=1e-4)
    # Other adapters do not take these weights in silence.
    with pytest.raises(RuntimeError, match="size mismatch"):
        TransferModule.from_checkpoint(tmp_path / "model.ckpt", lora=LoraOptions(rank=3))


def test_the_base_is_frozen_and_bitwise_the_pretrained_one(folder: Path) -> None:
    module = module_of(folder)
    pretrained = load_backbone(str(folder))[0]
    assert torch.equal(features(module.backbone), features(pretrained))
    # The head and an adapter of two matrices on six layers a block.
    trains = [name for name, value in module.named_parameters() if value.requires_grad]
    assert len(trains) == 2 + 3 * 6 * 2
    fit(module, [])
    base = {
        name.replace("model.base_model.model.", "model.").replace(".base_layer", ""): value
        for name, value in module.backbone.state_dict().items()
        if "lora" not in name
    }
    wanted = pretrained.state_dict()
    assert base.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in base.items())


def test_schedules_open_adapters_by_depth_and_never_the_base(folder: Path) -> None:
    module, watch = module_of(folder), Watch()
    fit(module, [BackboneFreezeUnfreeze("gradual", verbose=False), DiscriminativeLR(layer_decay=0.5), watch])
    for epoch in range(4):
        trains = watch.trains[4 * epoch]
        assert {int(LAYER.search(name)[1]) for name in trains if "lora" in name} == set(range(3 - epoch, 3))
        assert all("lora" in name or name.startswith("head.") for name in trains)
    for name, rate in watch.rates[0].items():
        depth = 3 if name.startswith("head.") else int(LAYER.search(name)[1])
        assert rate == pytest.approx(0.02 * 0.5 ** (3 - depth)), name


def test_forgetting_is_nothing_before_the_first_step_and_something_after(folder: Path) -> None:
    module = module_of(folder)
    rows = [{key: value[place] for key, value in batch.input.items()} for batch in batches() for place in range(4)]
    probe = DataLoader(rows, batch_size=4)  # type: ignore[arg-type] # a list is a dataset
    monitor = ForgettingMonitor(probe, metrics=("cosine", "cka"), max_overhead=None)
    fit(module, [monitor], epochs=2)
    first, last = monitor.history[0], monitor.history[-1]
    assert {reading.value for reading in first.readings.values()} == {0.0}
    pretrained, now = features(load_backbone(str(folder))[0]).double(), features(module.backbone).double()
    expected = 1 - torch.nn.functional.cosine_similarity(pretrained, now).mean()
    assert expected > 1e-4
    assert last.readings["forgetting_cosine"].value == pytest.approx(expected.item(), abs=1e-6)


def test_a_fit_goes_on_from_a_checkpoint_as_if_uninterrupted(folder: Path, tmp_path: Path) -> None:
    whole = module_of(folder)
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(whole, [BackboneFreezeUnfreeze("gradual", verbose=False), saver])
    again = module_of(folder)
    fit(again, [BackboneFreezeUnfreeze("gradual", verbose=False)], ckpt_path=tmp_path / "epoch=1.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_plan_tells_the_share_that_trains(folder: Path) -> None:
    module = module_of(folder, lora=LoraOptions(rank=2, target_modules=["query"]))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
    stage = stages_and_groups(trainer, module)["stages"][0]
    total = sum(value.numel() for value in module.parameters())
    assert stage["trainable_parameters"] == 3 * 2 * (16 * 2) + 16 * 2 + 2
    assert stage["share"] == pytest.approx(stage["trainable_parameters"] / total)
    freezer = BackboneFreezeUnfreeze("full", verbose=False)
    assert freezer.plan(module, 1)[0].trainable_parameters == stage["trainable_parameters"]
    assert configured_strategy(trainer, module) == "peft"


def test_the_network_from_scratch_trains_all_its_weights(folder: Path) -> None:
    twin = random_twin(module_of(folder), 1e-3)
    assert twin.lora is None
    assert all(value.requires_grad for value in twin.parameters())


def test_a_checkpoint_without_adapters_does_not_load_into_a_module_with(folder: Path, tmp_path: Path) -> None:
    fit(module_of(folder, lora=None), []).save_checkpoint(tmp_path / "plain.ckpt")
    assert TransferModule.from_checkpoint(tmp_path / "plain.ckpt").lora is None
    with pytest.raises((CheckpointError, RuntimeError), match="lora_A"):
        fit(module_of(folder), [], ckpt_path=tmp_path / "plain.ckpt")


def test_backbones_of_images_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"`lora` adapts the linear layers of transformers.*`ResNet`"):
        ClassificationModule("timm/test_resnet", weights="random", lora=LoraOptions())
