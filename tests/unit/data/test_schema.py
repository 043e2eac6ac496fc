from dataclasses import replace

import pytest

from lightning_transfer.data.schema import (
    build_schema,
    check_preprocessing,
    learnt_from_alone,
    resolve_classes,
    take_together,
)
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.types import Record, Schema

RECORDS = [
    Record("1", None, "b", "train", "g1", {"age": "1"}),
    Record("2", None, "a", "train", "g1", {"sex": "f"}),
    Record("3", None, "a", "test", "g2"),
]
RESTORED = Schema(task="multiclass", classes=("c", "b", "a"), negative_class="a")


def test_classes_are_the_sorted_labels() -> None:
    assert resolve_classes(RECORDS, "multiclass") == ("a", "b")


def test_the_users_order_holds_and_the_negative_class_comes_first() -> None:
    assert resolve_classes(RECORDS, "multiclass", classes=["b", "a"]) == ("b", "a")
    assert resolve_classes(RECORDS, "multiclass", classes=["b", "c", "a"], negative_class="a") == ("a", "b", "c")


def test_an_unknown_negative_class() -> None:
    with pytest.raises(DataError, match=r"No class is `fre`.*Did you mean `free`\? Classes: crack, free"):
        resolve_classes([Record("1", None, "free"), Record("2", None, "crack")], "multiclass", negative_class="fre")


def test_binary_needs_two_classes() -> None:
    with pytest.raises(DataError, match="binary needs two classes, found 3: a, b, c"):
        resolve_classes([*RECORDS, Record("4", None, "c")], "binary")


def test_the_checkpoints_order_holds_and_data_may_lack_classes() -> None:
    assert resolve_classes(RECORDS, "multiclass", restored=RESTORED) == ("c", "b", "a")
    assert resolve_classes(RECORDS[1:], "multiclass", negative_class="a", restored=RESTORED) == ("c", "b", "a")


@pytest.mark.parametrize(
    ("records", "options", "match"),
    [
        ([*RECORDS, Record("4", None, "pit")], {}, r"Data: multiclass, a, b, pit\. Checkpoint: multiclass, c, b, a"),
        (RECORDS, {"classes": ["a", "b"]}, r"Data: multiclass, a, b\. Checkpoint"),
        (RECORDS, {"negative_class": "b"}, "`negative_class` is `b`.*trained with `a`"),
    ],
)
def test_data_that_do_not_fit_the_checkpoint(records, options, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        resolve_classes(records, "multiclass", restored=RESTORED, **options)


def test_another_task_than_the_checkpoints() -> None:
    with pytest.raises(CheckpointError, match=r"Data: binary.*Checkpoint: multiclass"):
        resolve_classes(RECORDS, "binary", restored=RESTORED)


def test_the_schema_counts_classes_and_groups() -> None:
    schema = build_schema(
        RECORDS, ("a", "b"), "multiclass", negative_class=None, sampling="weighted", preprocessing={"size": (8, 8)}
    )
    assert schema.counts == {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 0}}
    assert schema.num_groups == {"train": 1, "test": 1}
    assert schema.columns == ("age", "sex")
    assert schema.preprocessing == {"size": [8, 8]}
    assert schema.sampling == "weighted"
    assert len(schema.fingerprint) == 64
    assert Schema.from_dict(schema.to_dict()) == schema


def test_groups_are_not_counted_where_some_are_unknown() -> None:
    records = [replace(RECORDS[0], group=None), *RECORDS[1:]]
    schema = build_schema(records, ("a", "b"), "binary", negative_class=None, sampling=None, preprocessing={})
    assert schema.num_groups == {"test": 1}
    assert schema.negative_class == "a"


def test_multi_label_counts_positives() -> None:
    records = [Record("1", None, (1.0, None), "train"), Record("2", None, (1.0, 0.0), "train")]
    schema = build_schema(records, ("x", "y"), "multilabel", negative_class=None, sampling=None, preprocessing={})
    assert schema.counts == {"train": {"x": 2, "y": 0}}


def test_a_limit_on_files_is_no_preprocessing() -> None:
    check_preprocessing({"size": [8, 8], "max_megapixels": 200}, {"size": [8, 8], "max_megapixels": 100})
    check_preprocessing({"size": [8, 8], "bit_depth": None, "max_megapixels": 100}, {"size": [8, 8]})
    with pytest.raises(CheckpointError, match="`bit_depth` is 12"):
        check_preprocessing({"size": [8, 8], "bit_depth": 12}, {"size": [8, 8]})


def test_the_same_preprocessing_passes_as_tuples_or_lists() -> None:
    check_preprocessing({"size": (8, 8), "mean": (0.5,)}, {"size": [8, 8], "mean": [0.5]})
    check_preprocessing({"size": (8, 8)}, {})


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        ({"size": [16, 16]}, r"`size` is \[8, 8\], the checkpoint has \[16, 16\]"),
        ({"size": [8, 8], "crop": 1}, "`crop` is None"),
    ],
)
def test_other_preprocessing_names_the_key(saved, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        check_preprocessing({"size": (8, 8)}, saved)


def test_all_but_the_negative_class_is_taken_together_once() -> None:
    found = take_together([*RECORDS, Record("4", None)], "a")
    assert [record.label for record in found] == ["defect", "a", "a", None]
    assert found[0].meta == {"age": "1", "original_label": "b"}
    assert [record.meta for record in found[1:]] == [RECORDS[1].meta, {}, {}]
    assert take_together(found, "a") == found


def test_the_class_that_is_learnt_from_alone_must_be_known() -> None:
    assert learnt_from_alone(RECORDS, "multiclass", "b") == "b"
    assert learnt_from_alone(RECORDS, "multiclass", None, RESTORED) == "a"
    # Data that only test a finished model may lack it.
    assert learnt_from_alone(RECORDS[:1], "multiclass", "a", RESTORED) == "a"
    with pytest.raises(DataError, match=r"set `data.negative_class`. Classes: a, b"):
        learnt_from_alone(RECORDS, "multiclass", None)
    with pytest.raises(DataError, match=r"No class is `c` .*Classes: a, b"):
        learnt_from_alone(RECORDS, "multiclass", "c")
    with pytest.raises(DataError, match="`multilabel` has no negative class"):
        learnt_from_alone(RECORDS, "multilabel", "a")


def test_texts_are_counted_as_utterances() -> None:
    rows = [Record("1", None, "hello", "train"), Record("2", None, "hello", "train"), Record("3", None, "", "test")]
    options = {"negative_class": None, "sampling": None, "preprocessing": {}}
    schema = build_schema(rows, ("<pad>", "|", "a"), "transcription", **options)
    assert schema.counts == {"train": {"utterances": 2}, "test": {"utterances": 1}}
    assert schema.classes == ("<pad>", "|", "a")
