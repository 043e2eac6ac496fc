"""Batches of a cache: every part under its name, targets and places as the data set has them."""

from __future__ import annotations

import torch
from torch.utils.data import Subset

from lightning_transfer.data.activation_files import ActivationFiles, ActivationWriter
from lightning_transfer.data.loading import RecordDataset
from lightning_transfer.data.stored_batches import StoredBatches, StoredLayout, pack, record_dataset, view_of
from lightning_transfer.types import Activations, Record

BIG = 1 << 30


def stored(views: int = 1, masks: bool = False) -> StoredBatches:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    writer = ActivationWriter(None, memory_limit=BIG, size_limit=BIG)
    for view in range(views):
        kept = Activations(
            (torch.arange(6.0).view(3, 2) + 100 * view, torch.arange(3)),
            {"attention_mask": mask},
            {"input_values": torch.full((3, 1), 9)},
        )
        layout, tensors = pack(kept, torch.full((3, 2, 2), -100) if masks else None)
        writer.add([item * views + view for item in range(3)], tensors)
    rows = [Record(str(number), None, "ab"[number % 2]) for number in range(3)]
    data = RecordDataset(rows, lambda record: record, ("a", "b"), "multiclass", index=[(n, 0, 1) for n in range(3)])
    again = StoredLayout.from_dict(layout.to_dict())
    return StoredBatches(ActivationFiles([writer.finish({})]), again, data.targets_of, data.place_of, views)


def test_a_batch_has_all_parts_under_their_names() -> None:
    batch = stored().batch([2, (0, 12345)])
    assert torch.equal(batch.input.layers[0], torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
    assert batch.input.layers[1].tolist() == [2, 0]
    assert batch.input.given["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert batch.input.given["attention_mask"].dtype == torch.int64
    assert batch.input.sizes["input_values"].tolist() == [[9], [9]]
    assert batch.target is not None
    assert batch.target.tolist() == [0, 0]
    assert batch.index.tolist() == [[2, 0, 1], [0, 0, 1]]


def test_whole_batches_that_a_sampler_draws_are_one_batch() -> None:
    assert stored().batch([[(1, 5), (2, 6)]]).index.tolist() == [[1, 0, 1], [2, 0, 1]]


def test_the_seed_of_an_item_chooses_its_view() -> None:
    batches = stored(views=3)
    found = [batches.batch([(1, seed)]).input.layers[0][0, 0].item() for seed in (0, 1, 2, 3)]
    assert found == [2.0, 102.0, 202.0, 2.0]
    assert view_of(None, 3) == 0


def test_masks_come_back_as_classes() -> None:
    target = stored(masks=True).batch([0, 1]).target
    assert target is not None
    assert target.dtype == torch.int64
    assert bool((target == -100).all())
    assert target.shape == (2, 2, 2)


def test_a_batch_without_all_labels_has_no_target() -> None:
    rows = [Record("0", None, "a"), Record("1", None, None)]
    data = RecordDataset(rows, lambda record: record, ("a", "b"), "multiclass")
    assert data.targets_of([0, 1]) is None
    assert data.targets_of([0]) is not None


def test_the_order_of_evaluation_is_seen_through() -> None:
    data = RecordDataset([Record("0", None, "a")], lambda record: record, ("a",), "multiclass")
    assert record_dataset(Subset(data, [0])) == (data, [0])
    assert record_dataset(data) == (data, None)
    assert record_dataset(Subset([1, 2], [0]))[1] is None  # type: ignore[arg-type]
