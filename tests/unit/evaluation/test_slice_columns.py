from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.evaluation.slice_columns import cut_column, find_columns
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(task="multiclass", classes=("a", "b"))
IMAGES = Schema(task="multiclass", classes=("a", "b"), preprocessing={"kind": "image"})


def _records(*metas: dict[str, object]) -> list[Record]:
    return [Record(id=str(place), input=None, label="a", meta=meta) for place, meta in enumerate(metas)]


def test_numbers_are_cut_into_bands_of_like_counts() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    names, reason = cut_column([*values.tolist(), None])
    assert reason == ""
    assert names[-1] == "(none)"
    bands = np.array(names[:-1])
    assert sorted(np.unique(bands, return_counts=True)[1].tolist()) == [100, 100, 100, 100]
    # Each band holds what lies between its ends.
    for name in np.unique(bands):
        low, high = (float(part) for part in name.split(" to "))
        inside = values[bands == name]
        assert low - 1e-3 * abs(low) <= inside.min()
        assert inside.max() <= high + 1e-3 * abs(high)


def test_a_value_on_a_cut_belongs_to_the_upper_band_and_the_last_to_the_last() -> None:
    names, _ = cut_column(range(9))
    assert names == ["0 to 2"] * 2 + ["2 to 4"] * 2 + ["4 to 6"] * 2 + ["6 to 8"] * 3


def test_texts_that_are_numbers_are_cut_too_and_few_of_them_are_not() -> None:
    many, _ = cut_column([str(place) for place in range(12)])
    assert len(set(many)) == 4
    few, _ = cut_column([str(place % 8) for place in range(40)])
    assert len(set(few)) == 8


def test_one_word_among_numbers_makes_them_values() -> None:
    names, reason = cut_column([*(str(place) for place in range(12)), "x"])
    assert len(set(names)) == 13
    assert reason == ""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None, ""], "no record has a value"),
        (["x", " x "], "all records have `x`"),
        ([f"w{place}" for place in range(21)], "21 different values in 21 records, and at most 20 make slices"),
        # Three in four are 0, and so are three of five quartiles' ends.
        ([0.0] * 90 + list(range(1, 11)), "its quartiles lie within 0 to 10"),
    ],
)
def test_columns_that_make_no_slices_say_why(values: list[object], reason: str) -> None:
    assert cut_column(values) == ([], reason)


def test_all_columns_of_any_record_are_found_with_missing_values() -> None:
    found, missing = find_columns(_records({"line": "x"}, {"shift": "y"}), SCHEMA)
    assert found == {"line": ["x", None], "shift": [None, "y"]}
    assert missing == {}


def test_a_column_that_is_not_there_is_named_with_what_there_is() -> None:
    found, missing = find_columns(_records({"line": "x"}), SCHEMA, ["lien", "line"])
    assert list(found) == ["line"]
    assert missing == {"lien": "there is no such column. Did you mean `line`? Columns: line"}


def test_images_have_a_size_and_texts_a_length(tmp_path: Path) -> None:
    paths = []
    for place, size in enumerate([(40, 30), (10, 50), (20, 20)]):
        paths.append(tmp_path / f"{place}.png")
        Image.new("L", size).save(paths[-1])
    images = [Record(id=str(path), input=path) for path in [*paths, tmp_path / "gone.png"]]
    assert find_columns(images, IMAGES)[0] == {"image_long_side": [40, 50, 20, None]}
    texts = [Record(id=text, input=text) for text in ("ab", "abcd")]
    assert find_columns(texts, SCHEMA)[0] == {"text_length": [2, 4]}


def test_what_all_records_share_is_left_unsaid_unless_asked_for_and_the_data_come_first() -> None:
    texts = [Record(id=str(place), input="ab", meta={"line": place}) for place in range(2)]
    assert list(find_columns(texts, SCHEMA)[0]) == ["line"]
    assert find_columns(texts, SCHEMA, ["text_length"])[0] == {"text_length": [2, 2]}
    own = [Record(id=str(place), input="ab" * place, meta={"text_length": "short"}) for place in range(2)]
    assert find_columns(own, SCHEMA)[0] == {"text_length": ["short", "short"]}
