"""A finished model gets more classes: the same logits at the start, a checkpoint of its own, and again."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.callbacks import ForgettingMonitor
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.modules import ClassificationModule, ExpandedHead, NormalOnlyModule, TransferModule, expand_head
from lightning_transfer.modules.expansion import Expansion
from lightning_transfer.types import Schema
from tests.unit.modules.expansion_toys import NEW, OLD, Shades, expanding, finished, make_trainer, schema_of

HEADS: list[dict[str, Any]] = [{}, {"head_norm": "batchnorm", "head_dropout": 0.2}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("old"), **HEADS[1]).parent


def _pictures() -> torch.Tensor:
    return torch.stack([record.input for record in Shades((*OLD, *NEW), seed=9).read_records()])


class _Start(pl.Callback):
    """Keep the logits, and the rows of new classes, from before the first step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        modes = [(part, part.training) for part in pl_module.modules()]
        pl_module.eval()
        with torch.no_grad():
            self.logits = pl_module(_pictures())
        for part, training in modes:
            part.training = training
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.mark.parametrize("head", HEADS)
def test_a_fit_starts_with_the_old_logits_bit_for_bit(tmp_path: Path, head: dict[str, Any]) -> None:
    path = finished(tmp_path, **head)
    old = TransferModule.from_checkpoint(path)
    with torch.no_grad():
        before = old(_pictures())
    start, module = _Start(), expanding(path)
    make_trainer(tmp_path, callbacks=[start]).fit(module, datamodule=Shades(("pit", *NEW), negative_class="good"))
    # `good` and `crack` are absent now, and keep their places.
    assert schema_of(module).classes == ("good", "crack", "pit", "dent", "stain")
    assert schema_of(module).negative_class == "good"
    assert torch.equal(start.logits[:, :3], before)
    assert start.logits.shape == (60, 5)
    rows = start.state["head.parts.1.weight"]
    assert torch.allclose(rows.norm(dim=1), start.state["head.parts.0.weight"].norm(dim=1).mean().expand(2))
    # Half of the new pictures or so are found before a step is made; the classes are far apart here.
    assert (start.logits[36:, 3:].argmax(1) == torch.tensor([1, 0]).repeat_interleave(12)).all()
    assert not torch.equal(module.state_dict()["head.parts.0.weight"], start.state["head.parts.0.weight"])


def test_its_checkpoint_is_enough_alone_and_expands_again(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "old.ckpt"
    copy.write_bytes((run / "model.ckpt").read_bytes())
    module = expanding(copy)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, datamodule=Shades((*OLD, *NEW)))
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    copy.unlink()
    restored = TransferModule.from_checkpoint(tmp_path / "second.ckpt")
    assert isinstance(restored.head, ExpandedHead)
    assert restored.head.sizes == (3, 2)
    with torch.no_grad():
        expected = module.eval()(_pictures())
        assert torch.equal(restored(_pictures()), expected)
    third = expand_head(tmp_path / "second.ckpt", ["burr"]).eval()
    assert third.head.sizes == (3, 2, 1)
    with torch.no_grad():
        assert torch.equal(third(_pictures())[:, :5], expected)
    assert schema_of(third).classes == (*schema_of(module).classes, "burr")
    trainer = make_trainer(tmp_path)
    trainer.fit(third.train(), datamodule=Shades(("good", "burr")))
    trainer.save_checkpoint(tmp_path / "third.ckpt")
    assert TransferModule.from_checkpoint(tmp_path / "third.ckpt").head.sizes == (3, 2, 1)


class _Look(pl.Callback):
    """Keep the weights that a fit starts with."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


def test_a_fit_that_goes_on_has_its_rows_already(run: Path, tmp_path: Path) -> None:
    """In Python with the same module, and as the command line does it: without the old model."""
    module = expanding(run)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, datamodule=Shades(NEW))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    plain = ClassificationModule("timm/test_resnet", weights="random", **HEADS[1])
    for again, data in ((expanding(run), Shades(NEW)), (plain, _with_schema(module))):
        look = _Look()
        make_trainer(tmp_path, 2, callbacks=[look]).fit(
            again, datamodule=data, ckpt_path=tmp_path / "one.ckpt", weights_only=True
        )
        assert set(look.state) == set(module.state_dict())
        assert all(torch.equal(look.state[name], value) for name, value in module.state_dict().items())
        assert again.head.sizes == (3, 2)


def _with_schema(module: ClassificationModule) -> Shades:
    """Data as the command line makes them for a resumed fit: they know the checkpoint's classes."""
    data = Shades(NEW)
    data.use_schema(schema_of(module))
    return data


def test_the_monitor_reads_zero_at_the_start_and_sees_what_is_lost(run: Path, tmp_path: Path) -> None:
    monitor = ForgettingMonitor(
        Shades(OLD, count=40), head="head", metrics=("accuracy", "agreement", "kl"), max_overhead=None
    )
    module = expanding(run, optimizer=lambda params: torch.optim.AdamW(params, lr=0.05))
    make_trainer(tmp_path, 4, callbacks=[monitor]).fit(module, datamodule=Shades(NEW, count=40))
    first, last = monitor.history[0].readings, monitor.history[-1].readings
    assert {name: reading.value for name, reading in first.items()} == dict.fromkeys(first, 0.0)
    assert set(first) == {"forgetting_accuracy", "forgetting_agreement", "forgetting_kl"}
    # Trained on the new classes alone, the old ones are lost: all classes compete, not the old ones among themselves.
    assert last["forgetting_accuracy"].value > 0.5


def test_other_preprocessing_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="`size` is 64, the checkpoint has 32"):
        make_trainer(tmp_path).fit(expanding(run), datamodule=Shades((*OLD, *NEW), size=64))


def test_data_without_a_new_class_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class that is new"):
        make_trainer(tmp_path).fit(expanding(run), datamodule=Shades(OLD))


@pytest.mark.parametrize(
    ("name", "value"), [("backbone", "timm/resnet18"), ("head_norm", "none"), ("head_dropout", 0.5)]
)
def test_the_network_is_that_of_the_run(run: Path, name: str, value: Any) -> None:
    given = {"backbone": "timm/test_resnet", name: value}
    with pytest.raises(ValueError, match=rf"whose `{name}` is .*got '?{value}'?\. Leave `{name}` out"):
        ClassificationModule(**given, expand_from=str(run))


def test_balanced_weights_of_absent_classes_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="there are none of good, crack, pit"):
        make_trainer(tmp_path).fit(expanding(run, class_weights="balanced"), datamodule=Shades(NEW))


def test_a_source_head_comes_along(tmp_path: Path) -> None:
    path = finished(tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    kept = torch.nn.Linear(checkpoint["lightning_transfer"]["card"]["num_features"], 7)
    checkpoint["lightning_transfer"]["source_head"] = [kept.in_features, 7]
    checkpoint["state_dict"].update({f"source_head.{name}": value for name, value in kept.state_dict().items()})
    torch.save(checkpoint, path)
    module = expanding(path, keep_source_head=True)
    assert torch.equal(module.source_head.weight, kept.weight)
    assert not module.source_head.weight.requires_grad
    assert expanding(path).source_head is None


def test_a_source_head_that_was_not_kept_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="has kept none"):
        expanding(run, keep_source_head=True)


def test_two_classes_with_one_logit_cannot_be_expanded(tmp_path: Path) -> None:
    module = ClassificationModule("timm/test_resnet", weights="random")
    module.use_schema(Schema(task="binary", classes=("good", "bad")))
    _save(module, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="tells `good` from `bad` by one logit"):
        Expansion.read(tmp_path)


def test_a_head_without_rows_cannot_be_expanded(tmp_path: Path) -> None:
    module = NormalOnlyModule("timm/test_resnet", weights="random")
    module.use_schema(Schema(task="binary", classes=("good", "defect")))
    _save(module, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="holds a `NormalOnlyModule`"):
        Expansion.read(tmp_path)


def _save(module: TransferModule, path: Path) -> None:
    module.configure_model()
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)


def test_new_classes_in_python(run: Path, tmp_path: Path) -> None:
    module = expand_head(run, ["stain", "dent"], label_smoothing=0.1)
    assert module.label_smoothing == 0.1
    assert all(part.training for part in module.head.modules())
    # Without data the new rows are zero, and their logits the old ones' mean bias.
    with torch.no_grad():
        logits = module.eval()(_pictures())
    assert torch.allclose(logits[:, 3:], module.head.parts[0].bias.mean())
    make_trainer(tmp_path).fit(module.train(), datamodule=Shades(NEW))
    assert not torch.equal(module.head.parts[1].weight[0], module.head.parts[1].weight[1])
    assert schema_of(module).classes == ("good", "crack", "pit", "stain", "dent")


@pytest.mark.parametrize(
    ("names", "said"), [([], r"\[\]"), ("dent", "'dent'"), (["dent", "pit"], "`pit`"), (["a", "a"], "`a`")]
)
def test_names_that_are_not_new_are_refused(run: Path, names: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        expand_head(run, names)


def test_a_schema_in_another_order_is_refused(run: Path) -> None:
    module = expanding(run)
    module.use_schema(Schema(task="multiclass", classes=("stain", *OLD)))
    with pytest.raises(CheckpointError, match="the classes now do not begin with these"):
        module.configure_model()
