"""Which classes are new, in what order, and which are only misspelt."""

import re

import pytest

from lightning_transfer.data.new_classes import add_classes, misspelt
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.types import Schema

OLD = Schema(task="multiclass", classes=("delivery", "billing", "login"))


def test_old_classes_keep_their_order_and_new_ones_follow_sorted() -> None:
    found = add_classes({"returns", "billing", "careers"}, "multiclass", OLD)
    assert found == ("delivery", "billing", "login", "careers", "returns")


def test_named_classes_decide_the_order_of_new_ones() -> None:
    wanted = ("billing", "returns", "delivery", "login", "careers")
    assert add_classes({"returns"}, "multiclass", OLD, classes=wanted)[3:] == ("returns", "careers")


def test_without_a_new_class_there_is_nothing_to_expand() -> None:
    with pytest.raises(DataError, match=r"no class that is new: they have billing, and the model .* delivery, billing"):
        add_classes({"billing"}, "multiclass", OLD)


@pytest.mark.parametrize("name", ["Billing", "bil-ling ", "biling", "billling", "billnig", "billings"])
def test_a_misspelt_old_class_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"`{name}` (`billing`?)")):
        add_classes({name, "returns"}, "multiclass", OLD)


def test_a_name_like_an_old_one_may_be_meant() -> None:
    assert add_classes({"billings"}, "multiclass", OLD, classes=[*OLD.classes, "billings"])[-1] == "billings"


def test_labels_beside_the_named_classes_are_refused() -> None:
    with pytest.raises(DataError, match="neither old classes nor in `classes`: careers"):
        add_classes({"returns", "careers"}, "multiclass", OLD, classes=[*OLD.classes, "returns"])


def test_another_task_is_refused() -> None:
    with pytest.raises(CheckpointError, match="for multilabel, and the model to expand for multiclass"):
        add_classes(set(), "multilabel", OLD)


def test_multilabel_needs_the_old_classes_first() -> None:
    old = Schema(task="multilabel", classes=("x", "y"))
    with pytest.raises(DataError, match="first those of the model to expand, x, y"):
        add_classes(set(), "multilabel", old, classes=["y", "x", "z"])
    assert add_classes(set(), "multilabel", old, classes=["x", "y", "z"]) == ("x", "y", "z")


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("tier 1", "tier 2", None),
        ("queue 12", "queue-12", "queue-12"),
        ("IT", "IP", None),
        ("card_arrival", "card_linking", None),
        ("billing", "billing", None),
        ("abcdef", "abdcef", "abdcef"),
        ("abcdef", "badcef", None),
        ("abcdef", "abcd", None),
        ("abcdef", "bacdfe", None),
        ("Straße", "strasse", "strasse"),
    ],
)
def test_one_slip_is_a_misspelling_and_two_are_not(name: str, known: str, found: str | None) -> None:
    assert misspelt(name, [known]) == found
    assert (misspelt(known, [name]) is None) == (found is None)
