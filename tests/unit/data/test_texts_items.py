from __future__ import annotations

import pytest

from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_items import cleaned_texts
from lightning_transfer.types import Record

CLEANING = TextCleaning(phones=False)


def test_each_form_of_a_ticket_becomes_what_a_table_would_give() -> None:
    body = "<p>It is dark.</p><p>LG Ann</p>"
    expected = CLEANING.clean("Re: Lamp", body)[0]
    bare = CLEANING.clean("", body)[0]
    items = [{"subject": "Re: Lamp", "body": body}, body, {"body": body, "subject": None}, Record("1", expected)]
    assert cleaned_texts(items, CLEANING) == [expected, bare, bare, expected]
    assert (expected, bare) == ("Lamp\n\nIt is dark.", "It is dark.")


def test_what_is_empty_is_empty() -> None:
    items = ["", " \n", None, float("nan"), "\u200b", {"subject": "", "body": None}, Record("1", "  ")]
    assert cleaned_texts(items, CLEANING) == [""] * 7


@pytest.mark.parametrize(
    ("item", "match"),
    [
        (b"x", r"got bytes \(item 1\)"),
        ({"text": "x"}, "in item 1, got text"),
        (Record("r7", 3), "record `r7`, got int"),
    ],
)
def test_what_is_no_text_is_named(item: object, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        cleaned_texts(["fine", item], CLEANING)
