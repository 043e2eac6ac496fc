"""Training without defects. Oracles: the coreset's definition, scikit-learn's neighbours, data without defects."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch.utils.data import DataLoader

from lightning_transfer.errors import BackboneError
from lightning_transfer.modules import NormalOnlyModule, TransferModule
from lightning_transfer.modules.normal_only_bank import FENCE
from lightning_transfer.types import Batch, Record, Schema

SCHEMA = Schema(task="binary", classes=("good", "defect"), negative_class="good")


def _module(schema: Schema | None = SCHEMA, **options: Any) -> NormalOnlyModule:
    torch.manual_seed(0)
    module = NormalOnlyModule("timm/test_resnet", weights="random", **{"coreset_share": 0.2, **options})
    if schema is not None:
        module.use_schema(schema)
        module.configure_model()
    return module


def _images(count: int, seed: int = 0, marked: Sequence[int] = ()) -> torch.Tensor:
    """Noise of one kind; a bright square is the defect."""
    images = 0.3 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    for place in marked:
        images[place, :, 10:20, 8:18] += 6.0
    return images


def _loader(images: torch.Tensor, target: Sequence[float] | None, size: int = 4) -> DataLoader[Any]:
    known = None if target is None else torch.tensor(target)
    batches = []
    for start in range(0, len(images), size):
        index = torch.arange(start, min(start + size, len(images)))
        batches.append(Batch(images[index], None if known is None else known[index], index))
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class Data(pl.LightningDataModule):
    """Batches, and the records behind them."""

    def __init__(
        self, train: DataLoader[Any], groups: Sequence[str | None], val: DataLoader[Any] | None = None
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.schema = SCHEMA
        self.records = [Record(id=f"{place}.png", input=None, group=group) for place, group in enumerate(groups)]

    def train_dataloader(self) -> DataLoader[Any]:
        return self.train

    def val_dataloader(self) -> Any:
        return self.val or []

    def records_for(self, split: str) -> list[Record]:
        assert split == "train"
        return self.records


def _trainer(**options: Any) -> pl.Trainer:
    plain = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return pl.Trainer(accelerator="cpu", **{"max_epochs": 1, **plain, **options})


def _fit(module: NormalOnlyModule, *args: Any, **options: Any) -> pl.Trainer:
    trainer = _trainer(**options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stand out.*")
        trainer.fit(module, *args)
    return trainer


def test_the_memory_is_the_greedy_coreset_of_the_good_patches() -> None:
    images, target = _images(10, marked=[3, 7]), [0.0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    module = _module(projection=10_000, num_neighbours=0)
    _fit(module, _loader(images, target))
    good = images[torch.tensor(target) == 0]
    rows = module.patches(good)[1].flatten(2).transpose(1, 2).flatten(0, 1)
    bank = module.bank.patches
    assert len(bank) == round(0.2 * len(rows))
    distances = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    chosen = [int((rows - bank[0]).norm(dim=1).argmin())]
    while len(chosen) < len(bank):
        chosen.append(int(distances[:, chosen].min(dim=1).values.argmax()))
    assert torch.equal(bank, rows[chosen])

    new = _images(3, seed=5, marked=[1])
    patches = module.patches(new)[1]
    flat = patches.flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank.numpy()).kneighbors(flat)[0]
    expected = module.bank.logits(torch.from_numpy(nearest.reshape(3, -1).max(axis=1)))
    torch.testing.assert_close(module(new), expected.float(), rtol=1e-4, atol=1e-4)
    assert module(new)[:, 0].argmax() == 1


def test_other_classes_change_nothing_and_are_counted(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    images, target = _images(10, marked=[3, 7]), torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    both, alone = _module(), _module()
    with caplog.at_level("INFO"):
        _fit(both, _loader(images, target.tolist()))
    assert "2 training images of other classes than `good` are left out" in caplog.text
    _fit(alone, _loader(images[target == 0], [0.0] * 8))
    for name, value in both.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name


def test_nothing_of_the_backbone_moves() -> None:
    module = _module()
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    trainer = _fit(module, _loader(_images(8), [0.0] * 8))
    assert trainer.global_step == 0
    assert all(torch.equal(before[name], value) for name, value in module.backbone.state_dict().items())
    module.train()
    assert not any(part.training for part in module.backbone.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_one_pass_is_the_whole_fit() -> None:
    module = _module()
    trainer = _fit(module, _loader(_images(8), [0.0] * 8), max_epochs=5)
    assert trainer.current_epoch == 1
    first = {name: value.clone() for name, value in module.state_dict().items()}
    _fit(module, _loader(_images(8), [0.0] * 8))
    assert all(torch.equal(first[name], value) for name, value in module.state_dict().items())


def test_a_checkpoint_is_enough_alone(tmp_path: Any) -> None:
    module = _module(layers=["layer1", "layer3"], smoothing=2.0)
    trainer = _fit(module, _loader(_images(8), [0.0] * 8))
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    restored = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(restored, NormalOnlyModule)
    assert (restored.layers, restored.smoothing) == (("layer1", "layer3"), 2.0)
    new = _images(4, seed=9, marked=[2])
    assert torch.equal(restored(new), module.eval()(new))


@pytest.mark.parametrize("count", [1, 2])
def test_a_hidden_defect_is_named_even_on_two_photos_of_the_part(count: int) -> None:
    """Judged by images alone, the second photo would excuse the first."""
    marked = [6, 7][:count]
    images = _images(40, marked=marked)
    images[7] = images[6] if count == 2 else images[7]
    groups = [f"part{place // 2}" for place in range(40)]
    module = _module()
    with pytest.warns(UserWarning, match=r"good training images stand out .* 6\.png"):
        _trainer().fit(module, datamodule=Data(_loader(images, [0.0] * 40), groups))
    assert {name for name, _ in module.suspects[:count]} == {f"{place}.png" for place in marked}
    assert module.suspects[0][1] > 2 * FENCE


def test_clean_data_have_few_suspects_and_logits_below_zero() -> None:
    module = _module()
    images = _images(60)
    _fit(module, _loader(images, [0.0] * 60))
    assert len(module.suspects) <= 2
    assert (module(_images(40, seed=3)) > 0).float().mean() < 0.1
    assert (module(_images(4, seed=4, marked=[0, 1, 2, 3])) > 0).all()


def test_validation_logs_the_auroc_of_both_classes_alone() -> None:
    images, target = _images(8, seed=2, marked=[1, 5]), [0.0, 1, 0, 0, 0, 0, 1, 0]
    module = _module()
    val = _loader(images, target)
    trainer = _fit(module, _loader(_images(8), [0.0] * 8), val)
    expected = roc_auc_score(target, module(images)[:, 0])
    assert float(trainer.callback_metrics["val_auroc"]) == pytest.approx(expected)
    trainer = _fit(module, _loader(_images(8), [0.0] * 8), _loader(images, [0.0] * 8))
    assert "val_auroc" not in trainer.callback_metrics


def test_memory_is_bounded_and_it_is_said(caplog: Any) -> None:
    module = _module(max_patches=50, coreset_share=0.5)
    with caplog.at_level("INFO"):
        _fit(module, _loader(_images(8), [0.0] * 8))
    assert len(module.bank) == 25
    places = module.patches(_images(1))[1][0, 0].numel()
    assert f"give {8 * places:,} patches, of which a uniform sample of 50 is kept (`max_patches`)" in caplog.text


def test_distances_are_kept_for_a_test_and_for_prediction_if_asked() -> None:
    module = _module()
    images, target = 0.3 * torch.randn(6, 3, 64, 64), [0.0, 0, 0, 0, 1, 0]
    images[4, :, 40:60, 4:24] += 6.0
    _fit(module, _loader(0.3 * torch.randn(6, 3, 64, 64), [0.0] * 6))
    trainer = _trainer()
    trainer.test(module, _loader(images, target), verbose=False)
    assert sorted(module.grids) == list(range(6))
    grid = module.grids[4]
    rows = module.patches(images[4:5])[1]
    torch.testing.assert_close(grid, module.bank(rows)[1][0])
    row, column = divmod(int(grid.argmax()), grid.shape[1])
    assert row >= grid.shape[0] // 2
    assert column < grid.shape[1] // 2
    trainer.predict(module, _loader(images, None))
    assert module.grids == {}
    module.keep_grids = True
    trainer.predict(module, _loader(images, None))
    assert sorted(module.grids) == list(range(6))


def test_tiles_count_for_their_records() -> None:
    images = _images(40, marked=[2, 3])
    index = torch.tensor([[place // 2, place % 2, 2] for place in range(40)])
    loader: Any = DataLoader([Batch(images, torch.zeros(40), index)], batch_size=None)  # type: ignore[arg-type]
    module = _module()
    with warnings.catch_warnings(record=True):
        _trainer().fit(module, datamodule=Data(loader, [None] * 20))
    assert [name for name, _ in module.suspects[:2]] == ["1.png", "1.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coreset_share": 0.0}, "got 0.0"),
        ({"coreset_share": 1.5}, "got 1.5"),
        ({"max_patches": 0}, "`max_patches` of at least 1, got 0"),
        ({"projection": 0}, "`projection` of at least 1, got 0"),
        ({"smoothing": -1.0}, "got -1.0"),
        ({"num_neighbours": 1}, "got 1"),
        ({"layers": []}, "empty list"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _module(**options)


def test_wrong_data_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match=r"multiclass with the classes a, b, c.*negative_class"):
        _module(Schema(task="multiclass", classes=("a", "b", "c")))
    with pytest.raises(MisconfigurationException, match="sampler: weighted"):
        _module(Schema(task="binary", classes=("good", "defect"), sampling="weighted"))
    with pytest.raises(MisconfigurationException, match="None of the 4 training images is of the class `good`"):
        _fit(_module(), _loader(_images(4), [1.0] * 4))
    with pytest.raises(MisconfigurationException, match="no labels"):
        _fit(_module(), _loader(_images(4), None))
    with pytest.raises(MisconfigurationException, match="one tensor, got dict"):
        _module().patches({"ids": torch.zeros(1)})


def test_an_untrained_memory_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="is empty"):
        _module()(_images(1))
    with pytest.raises(MisconfigurationException, match="no memory bank yet"):
        _module(None)(_images(1))
    with pytest.raises(BackboneError, match="no layer `layer9`"):
        _fit(_module(layers=["layer9"]), _loader(_images(4), [0.0] * 4))


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    trainer = _trainer()
    monkeypatch.setattr(type(trainer), "world_size", property(lambda self: 2))
    with pytest.raises(MisconfigurationException, match=r"there are 2: .*devices: 1"):
        trainer.fit(module, _loader(_images(4), [0.0] * 4))


def test_a_single_image_still_gives_finite_logits() -> None:
    module = _module()
    with pytest.warns(UserWarning, match="1 good training image cannot be compared"):
        _trainer().fit(module, _loader(_images(1), [0.0]))
    assert np.isfinite(module(_images(3, seed=1, marked=[0])).numpy()).all()
