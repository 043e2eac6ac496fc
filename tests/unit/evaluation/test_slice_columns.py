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


def test_times_are_cut_into_quarters_of_years() -> None:
    days = [f"{2024 + place // 12}-{place % 12 + 1:02}-{place + 1:02}T23:59" for place in range(18)]
    names, reason = cut_column([*days, None, ""])
    assert reason == ""
    assert names[:6] == ["2024 Q1"] * 3 + ["2024 Q2"] * 3
    assert names[-3:] == ["2025 Q2", "(none)", "(none)"]
    assert len(set(names)) == 7


@pytest.mark.parametrize(
    ("days", "first", "count"),
    [
        ([f"2025-0{month}-{day:02}" for month in (4, 6) for day in range(1, 9)], "2025-04", 2),
        ([f"2025-04-{day:02}T08:00" for day in range(1, 13)], "2025-04-01", 12),
        ([f"{year}-01-01" for year in range(2000, 2015)], "2000 Q1", 15),
        ([f"{year}-{month:02}-01" for year in range(2010, 2020) for month in (1, 4, 7)], "2010", 10),
        (["31.12.2024", *(f"{day:02}.01.2025" for day in range(1, 12))], "2024 Q4", 2),
    ],
)
def test_a_period_makes_some_slices_and_not_too_many(days: list[str], first: str, count: int) -> None:
    names, reason = cut_column(days)
    assert (names[0], len(set(names)), reason) == (first, count, "")


def test_a_number_is_a_day_only_where_the_name_says_so() -> None:
    days = [f"2025{month:02}{day:02}" for month in (1, 5, 9) for day in range(1, 9)]
    assert set(cut_column(days, "created")[0]) == {"2025 Q1", "2025 Q2", "2025 Q3"}
    assert all(" to " in name for name in cut_column(days, "size")[0])


def test_few_times_and_times_that_no_period_divides_are_values() -> None:
    assert len(set(cut_column([f"2025-0{month}-01" for month in range(1, 9)])[0])) == 8
    minutes = [f"2025-04-01T08:{minute:02}" for minute in range(30)]
    assert cut_column(minutes) == ([], "30 different values in 30 records, and at most 20 make slices")


def test_the_sample_tickets_are_cut_by_language_channel_quarter_and_length() -> None:
    from lightning_transfer.data.texts import read_tickets

    sample = Path(__file__).parents[3] / "recipes" / "nlp" / "sample" / "tickets.csv"
    found = read_tickets(
        sample, label_column="queue", time_column="created", group_column="customer", out_of_scope="out_of_scope"
    )
    columns, _ = find_columns(found.records, Schema("multiclass", found.classes, preprocessing={"kind": "text"}))
    cut = {name: set(cut_column(values, name)[0]) for name, values in columns.items()}
    assert cut["language"] == {"en", "de"}
    assert cut["channel"] == {"email", "web", "chat"}
    assert cut["time"] == {"2025 Q1", "2025 Q2", "2025 Q3", "2025 Q4"}
    assert len(cut["text_length"]) == 4
    assert all(" to " in name for name in cut["text_length"])


def test_ages_are_cut_where_people_are_not_where_the_data_are() -> None:
    ages = ["17", "18", "39.5", "40", "59", "60", "79", "80", "90+", "", None]
    bands = ["under 18", "18 to 39", "40 to 59", "60 to 79", "80 and over", "(none)"]
    assert cut_column(ages, "Age")[0] == [bands[place] for place in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    assert cut_column([70, 71, 72], "age") == ([], "all records have an age of `60 to 79`")
    # As DICOM writes them: years, months, weeks, days.
    assert cut_column(["045Y", "018M", "300D", "104W", "090Y"], "patient age")[0] == [
        "40 to 59", "under 18", "under 18", "under 18", "80 and over",
    ]  # fmt: skip


def test_what_is_no_age_is_cut_as_ever() -> None:
    assert cut_column(["young", "old"], "age")[0] == ["young", "old"]
    assert cut_column([1, 2, 3, 4, 5, 6, 7, 8, 900], "age")[0][0].endswith(" to 3")
    assert cut_column(["17", "18"], "wage")[0] == ["17", "18"]
