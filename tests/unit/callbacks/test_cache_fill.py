"""The items of a split, in batches; and a network whose features depend on the batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.callbacks import FeatureCache
from lightning_transfer.callbacks.cache_fill import Split
from lightning_transfer.data.loading import Collate, EpochSampler, RecordDataset, make_loader
from lightning_transfer.types import Record
from tests.unit.callbacks.cache_domains import Sounds
from tests.unit.callbacks.cache_toys import run

LENGTHS = [3.0, 1.0, 2.0, 5.0, 4.0]


def split_of(random: bool = False, sampler: Any = None, views: int = 1, **options: Any) -> Split:
    augment = (lambda value, generator: value + torch.rand((), generator=generator)) if random else None
    rows = [Record(str(n), n, "a") for n in range(5)]
    data = RecordDataset(rows, lambda record: torch.tensor([float(record.input)]), ("a",), "multiclass", augment)
    given = {"batch_size": 2, "num_workers": 0, "collate": Collate(), "drop_last": False, "seed": 0, **options}
    return Split("train", make_loader(data, sampler, **given), views, seed=3)


def test_items_are_those_that_the_loader_may_draw() -> None:
    assert split_of(sampler=EpochSampler(5, 0)).items == [0, 1, 2, 3, 4]
    assert split_of(only=[1, 3]).items == [1, 3]
    assert sorted(split_of(only=[1, 3], lengths=LENGTHS, budget=20).items) == [1, 3]
    assert split_of(lengths=LENGTHS).items == [1, 2, 0, 4, 3]


def test_batches_hold_items_of_like_length() -> None:
    split = split_of(sampler=EpochSampler(5, 0))
    assert split.batches(None, None) == [[0, 1, 2, 3, 4]]
    assert split.batches(LENGTHS, None) == [[1, 2, 0, 4, 3]]
    assert split.batches(LENGTHS, 6.0) == [[1, 2], [0], [4], [3]]


def test_views_have_seeds_of_their_own_and_other_data_none() -> None:
    assert split_of().keys([0, 4], 0) == [(0, None), (4, None)]
    split = split_of(random=True, sampler=EpochSampler(5, 0), views=3)
    seeds = [seed for view in range(3) for _, seed in split.keys(range(5), view)]
    assert len(set(seeds)) == 15
    one, again = (split.collate(split.keys([2], 1)).input for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, split.collate(split.keys([2], 2)).input)


def test_features_that_depend_on_the_batch_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A norm over time sees the padding, whose length is the longest of the batch."""
    pytest.importorskip("transformers")
    import logging

    from lightning_transfer.backbones.frames import FrameTransformer
    from tests.unit.backbones.speech_toys import ctc_model
    from tests.unit.callbacks.cache_domains import make_recogniser

    class Waves(Sounds):
        def load_input(self, record: Any) -> torch.Tensor:
            return super().load_input(record).flatten()[: 40 * int(record.meta["length"])]

        def collate_inputs(self, inputs: Any) -> dict[str, torch.Tensor]:
            found = super().collate_inputs(inputs)
            return {"input_values": found["input_features"], "attention_mask": found["attention_mask"]}

    for family, kept in (("wav2vec2_layer", True), ("wav2vec2_group", False)):
        module = make_recogniser()
        # The toy's card is of another network; what counts is that the backbone reads waves.
        module.backbone = FrameTransformer(ctc_model(family, head=False))
        module.card = SimpleNamespace(**{**module.card.__dict__, "num_features": 16, "to_dict": dict})
        module.sound_seconds = lambda batch: [1.0] * len(batch.index)  # type: ignore[method-assign]
        caplog.clear()
        caplog.set_level(logging.INFO)
        _, losses, _ = run(tmp_path, FeatureCache(), module=module, data=Waves(), epochs=2)
        assert all(losses.cached) == kept
        assert ("depends on the others in its batch" in caplog.text) == (not kept)
