"""A datamodule gives masks as targets, at the network's size, moved with the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data import Augmentations, BaseDataModule, ImagePreprocessing
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.types import BackboneCard, Record, Schema

CARD = BackboneCard("x", "x", input_size=(1, 8, 8), mean=(0.0,), std=(1.0,))


class Pictures(BaseDataModule):
    def __init__(
        self, root: Path, labels: tuple[str | None, ...] = ("good", "pit", "crack"), **options: object
    ) -> None:
        super().__init__(task="segmentation", batch_size=4, val_fraction=0.2, calibration_fraction=0.0, **options)
        self.root = root
        self.labels = labels
        self.augmentations = Augmentations(["horizontal_flip", "vertical_flip", "rotate_90", "brightness"])

    def read_records(self) -> list[Record]:
        rng = np.random.default_rng(0)
        rows = []
        for place in range(30):
            label = self.labels[place % len(self.labels)]
            mask = np.zeros((8, 8), dtype=np.uint8)
            if label != "good":
                mask[tuple(rng.integers(0, 7, 2))] = 1 + place % 2
            path, drawn = self.root / f"{place}.png", self.root / f"{place}_mask.png"
            Image.fromarray(100 * mask).save(path)
            Image.fromarray(mask).save(drawn)
            rows.append(Record(str(place), str(path), label, group=f"g{place // 2}", mask=str(drawn)))
        return rows

    def make_preprocessing(self, card: BackboneCard) -> ImagePreprocessing:
        return ImagePreprocessing.from_card(card)

    def load_input(self, record: Record) -> torch.Tensor:
        return self.preprocessing(record.input)


def _set_up(data: BaseDataModule) -> BaseDataModule:
    data.use_card(CARD)
    data.setup("fit")
    return data


def test_masks_move_with_their_pictures(tmp_path: Path) -> None:
    data = Pictures(tmp_path)
    data.mask_values = "defect"
    _set_up(data)
    moved = 0
    for batch in data.train_dataloader():
        assert batch.target.dtype == torch.int64
        assert batch.target.shape == (*batch.input.shape[:1], 8, 8)
        least = batch.input.flatten(2).min(dim=2).values[..., None, None]  # brightness adds one number
        assert torch.equal(batch.target > 0, (batch.input > least + 0.1)[:, 0])
        records = [data.records_for("train")[place] for place in batch.index.tolist()]
        moved += sum(
            not torch.equal(data.load_target(record), target)
            for record, target in zip(records, batch.target, strict=True)
        )
    assert moved > 3
    (first, *_) = data.val_dataloader()
    assert torch.equal(first.target > 0, first.input[:, 0] > 0)


@pytest.mark.parametrize(
    ("values", "classes"),
    [("defect", ("good", "defect")), ("label", ("good", "crack", "pit")), ("index", ("bg", "odd", "even"))],
)
def test_classes_follow_from_what_masks_hold(tmp_path: Path, values: str, classes: tuple[str, ...]) -> None:
    options = {"classes": classes} if values == "index" else {"negative_class": "good"}
    data = Pictures(tmp_path, **options)
    data.mask_values = values
    schema = _set_up(data).schema
    assert schema is not None
    assert (schema.task, schema.classes, schema.negative_class) == ("segmentation", classes, classes[0])
    assert sum(schema.counts["train"].values()) == len(data.records_for("train"))
    assert set(schema.counts["train"]) == {"good", "pit", "crack"}
    for record in data.records:
        found = data.load_labels(record)
        assert found is not None
        assert {classes[place] for place in np.unique(found)} <= {classes[0], *classes[1:]}
        if values == "label" and record.label != "good":
            assert {classes[place] for place in np.unique(found)} == {"good", record.label}


def test_records_without_labels_need_masks_alone(tmp_path: Path) -> None:
    data = _set_up(Pictures(tmp_path, labels=(None,), classes=("bg", "odd", "even")))
    assert data.schema is not None
    assert data.schema.counts["train"] == {"images": len(data.records_for("train"))}


def test_unknown_masks_are_left_out_of_the_loss(tmp_path: Path) -> None:
    data = Pictures(tmp_path)
    data.mask_values = "defect"
    _set_up(data)
    assert set(data.load_target(Record("x", data.records[0].input, "pit")).unique().tolist()) == {-100}


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing names these. Give the names in `data.classes`"):
        _set_up(Pictures(tmp_path))
    data = Pictures(tmp_path, negative_class="godo")
    data.mask_values = "defect"
    with pytest.raises(DataError, match=r"No class is `godo`.*good"):
        _set_up(data)
    data = Pictures(tmp_path, labels=("good",), negative_class="good")
    data.mask_values = "label"
    with pytest.raises(DataError, match="no record has another one than `good`"):
        _set_up(data)

    class NoMasks(Pictures):
        def read_records(self) -> list[Record]:
            return [Record(row.id, row.input, row.label, group=row.group) for row in super().read_records()]

    data = NoMasks(tmp_path)
    data.mask_values = "defect"
    with pytest.raises(DataError, match=r"None of the .* training records has a mask"):
        _set_up(data)


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    data = Pictures(tmp_path)
    data.mask_values = "defect"
    data.use_schema(Schema(task="segmentation", classes=("good", "scratch")))
    with pytest.raises(
        CheckpointError, match=r"Data: segmentation, background, defect. Checkpoint: segmentation, good"
    ):
        _set_up(data)


def test_sizes_are_those_of_the_picture(tmp_path: Path) -> None:
    data = _set_up(Pictures(tmp_path, classes=("a", "b", "c")))
    assert data.input_size(data.records[0]) == (8, 8)
    assert data.input_size(Record("x", np.zeros((3, 5), dtype=np.uint8))) == (3, 5)
    assert data.pixel_spacing(data.records[0]) is None
