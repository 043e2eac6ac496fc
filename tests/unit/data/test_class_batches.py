"""Batches of several classes with several examples each. Oracle: counting."""

from collections import Counter

import pytest
from torch.utils.data import DataLoader

from lightning_transfer.data.class_batches import ClassBatchSampler, make_sampler
from lightning_transfer.data.loading import ResumableLoader
from lightning_transfer.types import Record

TEN_EACH = [f"class {number % 12}" for number in range(120)]
UNEVEN = ["large"] * 200 + ["middle"] * 30 + ["small"] * 3 + ["single"]


def batches(sampler, size):
    order = [place for place, _ in sampler]
    assert len(order) == len(sampler)
    assert len(order) % size == 0
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize("labels", [TEN_EACH, UNEVEN, ["a", "b"] * 3, [0, 0, 0, 1, 2, 2]])
@pytest.mark.parametrize(("size", "per_class"), [(8, 2), (8, 4), (48, 4)])
def test_every_batch_is_full_and_holds_several_classes_with_several_examples(labels, size, per_class):
    sampler = ClassBatchSampler(labels, seed=3, batch_size=size, examples_per_class=per_class)
    for _ in range(20):
        for batch in batches(sampler, size):
            counts = Counter(labels[place] for place in batch)
            assert all(count % per_class == 0 for count in counts.values())
            assert len(counts) >= 2
            for start in range(0, size, per_class):
                run = batch[start : start + per_class]
                size_of_class = labels.count(labels[run[0]])
                assert {labels[place] for place in run} == {labels[run[0]]}
                # No example twice, as long as the class has others.
                assert len(set(run)) == min(per_class, size_of_class)


def test_an_epoch_shows_about_as_many_examples_as_there_are_and_each_of_even_classes():
    sampler = ClassBatchSampler(TEN_EACH, seed=0, batch_size=24, examples_per_class=2)
    order = [place for batch in batches(sampler, 24) for place in batch]
    assert len(order) == 120
    assert Counter(order) == Counter(range(120))


def test_classes_come_equally_often_and_the_large_one_with_other_examples_in_each_epoch():
    sampler = ClassBatchSampler(UNEVEN, seed=0, batch_size=8, examples_per_class=2)
    first, second = ([place for place, _ in sampler] for _ in range(2))
    assert set(Counter(UNEVEN[place] for place in first).values()) <= {58, 60}
    shown = {place for place in first if place < 200}
    assert 50 <= len(shown) <= 60
    assert len(shown | {place for place in second if place < 200}) > 80


def test_the_order_is_a_function_of_seed_and_epoch():
    def make(seed=1):
        return ClassBatchSampler(TEN_EACH, seed, batch_size=8, examples_per_class=4)

    sampler = make()
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    again = make()
    again.set_epoch(2)
    assert list(again) == epochs[2]
    assert list(make(2)) != epochs[0]
    # Each item brings a seed of its own, for augmentation.
    assert len({seed for _, seed in epochs[0]}) == len(epochs[0])


def test_a_resumed_loader_goes_on_with_the_same_batches():
    def loader():
        sampler = ClassBatchSampler(TEN_EACH, 1, batch_size=8, examples_per_class=4)
        return ResumableLoader(range(120), batch_size=8, sampler=[item[0] for item in sampler])

    whole = [batch.tolist() for batch in loader()]
    again = loader()
    again.load_state_dict({"batches": 5, "of": len(whole)})
    assert [batch.tolist() for batch in again] == whole[5:]
    assert isinstance(again, DataLoader)


@pytest.mark.parametrize(
    ("size", "per_class", "said"),
    [(8, 1, "at least 2, got 1"), (30, 4, "batch of 30 .* multiple of 4, such as 64"), (4, 4, "batch of 4 cannot")],
)
def test_batches_without_partners_or_opponents_are_refused(size, per_class, said):
    with pytest.raises(ValueError, match=said):
        ClassBatchSampler(TEN_EACH, 0, batch_size=size, examples_per_class=per_class)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"weighted": True}, "sampler: weighted"), ({"examples_per_class": 2}, "examples_per_class` 2")],
)
def test_a_budget_goes_with_no_other_rule(options, said):
    rows = [Record(str(place), None, label) for place, label in enumerate("aabb")]
    with pytest.raises(ValueError, match=said):
        make_sampler(rows, 0, 4, lengths=[1.0] * 4, budget=2.0, **options)
    assert make_sampler(rows, 0, 4, lengths=[1.0] * 4, budget=2.0).draws_batches
    assert not make_sampler(rows, 0, 4, lengths=[1.0] * 4).draws_batches
