"""Checkpoints that rebuild themselves, heads that come from the schema, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_transfer.errors import CheckpointError
from lightning_transfer.modules import ClassificationModule, TransferModule, read_checkpoint
from lightning_transfer.types import Batch, Calibration, Schema

SCHEMA = Schema(
    task="multiclass",
    classes=("good", "pit", "crack"),
    counts={"train": {"good": 4, "pit": 2, "crack": 2}},
    negative_class="good",
)


def _batches(count: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(torch.randn(4, 3, 64, 64, generator=generator), torch.tensor([0, 1, 2, 0]), torch.arange(4) + 4 * index)
        for index in range(count)
    ]


def _loader() -> DataLoader[Batch]:
    return DataLoader(_batches(), batch_size=None)  # type: ignore[arg-type]


def _trained(folder: Path, **arguments: object) -> tuple[ClassificationModule, Path]:
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random", head_norm="batchnorm", **arguments)
    module.use_schema(SCHEMA)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, _loader())
    module.calibration = Calibration(temperature=1.5, threshold=0.3, rule="test", n=8)
    path = folder / "model.ckpt"
    trainer.save_checkpoint(path)
    return module.eval(), path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassificationModule, Path]:
    return _trained(tmp_path_factory.mktemp("trained"))


def test_configure_model_is_idempotent() -> None:
    module = TransferModule("timm/test_resnet", weights="random")
    module.use_schema(SCHEMA)
    module.configure_model()
    head = module.head
    module.configure_model()
    assert module.head is head


def test_restored_module_predicts_the_same_and_reads_no_weights(
    trained: tuple[ClassificationModule, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, path = trained
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    restored = TransferModule.from_checkpoint(path)
    assert type(restored) is ClassificationModule
    batch = _batches(1)[0]
    with torch.no_grad():
        assert torch.equal(restored(batch.input), module(batch.input))
    assert restored.calibration == module.calibration
    assert restored.schema == SCHEMA
    assert restored.card == module.card


def test_lightning_load_from_checkpoint_builds_the_head_too(trained: tuple[ClassificationModule, Path]) -> None:
    module, path = trained
    restored = ClassificationModule.load_from_checkpoint(
        path, backbone="timm/test_resnet", weights="random", head_norm="batchnorm", weights_only=True
    ).eval()
    batch = _batches(1)[0]
    with torch.no_grad():
        assert torch.equal(restored(batch.input), module(batch.input))


def test_from_checkpoint_keeps_a_source_head(tmp_path: Path) -> None:
    module, _ = _trained(tmp_path / "a")
    module.source_head = torch.nn.Linear(module.card.num_features, 7).requires_grad_(False)
    path = tmp_path / "model.ckpt"
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    restored = TransferModule.from_checkpoint(path)
    assert restored.source_head is not None
    assert torch.equal(restored.source_head.weight, module.source_head.weight)
    assert not restored.source_head.weight.requires_grad


def test_other_classes_are_refused_by_name(trained: tuple[ClassificationModule, Path]) -> None:
    other = ClassificationModule("timm/test_resnet", weights="random", head_norm="batchnorm")
    other.use_schema(Schema(task="multiclass", classes=("good", "dent", "crack")))
    other.configure_model()
    with pytest.raises(CheckpointError, match=r"good, pit, crack; the data have multiclass with good, dent, crack"):
        other.on_load_checkpoint(torch.load(trained[1], weights_only=True))


def test_a_module_without_schema_says_what_to_do(tmp_path: Path) -> None:
    module = ClassificationModule("timm/test_resnet", weights="random")
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False
    )
    with pytest.raises(MisconfigurationException, match="use_schema"):
        trainer.fit(module, _loader())


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign", "code"])
def test_unreadable_checkpoints_are_named(
    damage: str, trained: tuple[ClassificationModule, Path], tmp_path: Path
) -> None:
    path = tmp_path / "broken.ckpt"
    if damage == "empty":
        path.touch()
    elif damage == "truncated":
        path.write_bytes(trained[1].read_bytes()[:5000])
    elif damage == "foreign":
        torch.save({"state_dict": {}, "epoch": 3}, path)
    elif damage == "code":
        path.write_bytes(pickle.dumps(Path("/")))
    with pytest.raises(CheckpointError, match=r"broken\.ckpt"):
        read_checkpoint(path)


def test_a_later_format_is_refused(trained: tuple[ClassificationModule, Path], tmp_path: Path) -> None:
    checkpoint = torch.load(trained[1], weights_only=True)
    checkpoint["lightning_transfer"]["format"] = 99
    torch.save(checkpoint, tmp_path / "later.ckpt")
    with pytest.raises(CheckpointError, match="format 99"):
        TransferModule.from_checkpoint(tmp_path / "later.ckpt")


def test_wrong_dropout_is_named() -> None:
    with pytest.raises(ValueError, match=r"got 1\.0"):
        TransferModule("timm/test_resnet", weights="random", head_dropout=1.0)


def test_the_optimizer_holds_frozen_backbone_parameters_of_the_schedule_but_not_the_source_head() -> None:
    module = TransferModule("timm/test_resnet", weights="random")
    module.use_schema(SCHEMA)
    module.configure_model()
    module.source_head = torch.nn.Linear(4, 2).requires_grad_(False)
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(p) for name, p in module.named_parameters() if not name.startswith("source_head")}


def test_other_preprocessing_is_refused(trained: tuple[ClassificationModule, Path]) -> None:
    checkpoint = torch.load(trained[1], weights_only=True)
    checkpoint["lightning_transfer"]["schema"]["preprocessing"] = {"kind": "image", "size": [64, 64]}
    other = ClassificationModule("timm/test_resnet", weights="random", head_norm="batchnorm")
    other.use_schema(replace(SCHEMA, preprocessing={"kind": "image", "size": [96, 96]}))
    with pytest.raises(CheckpointError, match="size"):
        other.on_load_checkpoint(checkpoint)
