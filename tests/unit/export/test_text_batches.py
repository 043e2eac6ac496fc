import numpy as np

from lightning_transfer.export.text_batches import by_length, padded


def test_rows_are_filled_up_to_the_longest_and_the_mask_says_where() -> None:
    rows = [[7], [], [4, 5, 6]]
    found = padded(rows, pad_id=9)
    assert {values.dtype for values in found.values()} == {np.dtype(np.int64)}
    assert found["input_ids"].shape == (3, 3)
    for row, ids, mask in zip(rows, found["input_ids"], found["attention_mask"], strict=True):
        assert ids[mask == 1].tolist() == row
        assert set(ids[mask == 0].tolist()) <= {9}
    assert padded([], 0)["input_ids"].shape == (0, 0)


def test_every_place_is_in_one_batch_with_those_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(0, 50, 101).tolist()
    found = by_length(lengths, 32)
    assert sorted(place for part in found for place in part) == list(range(101))
    assert [len(part) for part in found] == [32, 32, 32, 5]
    assert [lengths[place] for part in found for place in part] == sorted(lengths)
    assert by_length([], 32) == []
