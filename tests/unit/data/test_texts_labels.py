import pytest

from lightning_transfer.data.texts_labels import LabelReader, label_at, split_labels
from lightning_transfer.errors import DataError


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("a", ("a",)),
        (" a | b|a||", ("a", "b")),
        ("", ()),
        ("  ", ()),
        (None, ()),
        (float("nan"), ()),
        ([], ()),
        (["b", None, "a"], ("b", "a")),
        ('["a|b", "c"]', ("a|b", "c")),
        ("[internal", ("[internal",)),
        (7, ("7",)),
        (7.0, ("7",)),
    ],
)
def test_every_form_of_labels(cell: object, labels: tuple[str, ...]) -> None:
    assert split_labels(cell) == labels


def test_levels() -> None:
    assert [label_at("a/b/c", level) for level in (1, 2, 3, 9)] == ["a", "a/b", "a/b/c", "a/b/c"]
    with pytest.raises(DataError, match="`billing//x` has an empty level"):
        label_at("billing//x", 1)
    with pytest.raises(ValueError, match="`label_level` of at least 1, got 0"):
        label_at("a", 0)


def test_levels_that_become_one_label() -> None:
    assert LabelReader(level=1).parse("billing/refund|billing/invoice") == "billing"
    assert LabelReader("multilabel", level=1).parse("a/x|b|a/y") == ("a", "b")
    assert LabelReader().parse("n/a") == "n/a"


def test_one_label_is_expected() -> None:
    with pytest.raises(DataError, match=r"2 labels, `a`, `b`. Keep one, or set `task: multilabel`"):
        LabelReader().parse("a|b")


def test_labels_that_are_not_allowed() -> None:
    reader = LabelReader(classes=("billing", "login"), out_of_scope="other")
    assert reader.parse("other") == "other"
    with pytest.raises(DataError, match=r"`biling` is none of the `classes`. Did you mean `billing`"):
        reader.parse("biling")


def test_classes_without_what_is_out_of_scope() -> None:
    reader = LabelReader(out_of_scope="other")
    assert reader.find_classes(["b", None, "a", "other"], "t.csv") == ("a", "b")
    assert LabelReader(classes=("b", "a")).find_classes(["a"], "t.csv") == ("b", "a")
    assert reader.find_classes([None], "t.csv") == ()
    with pytest.raises(
        DataError, match=r"No row of `t.csv` has the label `other` \(`out_of_scope`\). Did you mean `othr`"
    ):
        reader.find_classes(["othr", "a"], "t.csv")
    assert reader.find_classes(["a"], "t.csv", optional=True) == ("a",)


def test_multilabel_encoding() -> None:
    reader = LabelReader("multilabel", out_of_scope="other")
    assert reader.encode(("b", "a"), ("a", "b", "c")) == (1.0, 1.0, 0.0)
    assert reader.encode(("other",), ("a", "b")) == (0.0, 0.0)
    assert reader.encode(None, ("a",)) is None
    with pytest.raises(DataError, match=r"`other` \(out of scope\) stands beside"):
        reader.parse("a|other")
