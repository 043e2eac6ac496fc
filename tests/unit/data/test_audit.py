from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.data import BaseDataModule, audit_data, audit_records, count_records
from lightning_transfer.data.schema import take_together
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard, Record


class _Nothing:
    def to_dict(self) -> dict[str, Any]:
        return {"kind": "none"}


class Texts(BaseDataModule):
    """Texts in memory."""

    def __init__(self, rows: list[Record], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def read_records(self) -> list[Record]:
        return self.rows

    def make_preprocessing(self, card: BackboneCard) -> _Nothing:
        return _Nothing()

    def load_input(self, record: Record) -> Any:
        raise NotImplementedError


WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]


def _rows(count: int = 40, **meta: Callable[[int], object]) -> list[Record]:
    return [
        Record(f"r{i}", f"{WORDS[i % 10]} {WORDS[i // 10]} {WORDS[(i * 7) % 10]} {i * 7919}", "ab"[i % 2],
               meta={name: make(i) for name, make in meta.items()})
        for i in range(count)
    ]  # fmt: skip


def _audit(data: BaseDataModule, card: BackboneCard, **options: Any) -> dict[str, Any]:
    data.use_card(card)
    failure = None
    try:
        data.setup("fit")
    except DataError as error:
        failure = error
    found = audit_data(data, card, failure=failure, **options)
    order = [finding.severity for finding in found]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    return {finding.code: finding for finding in found}


def test_clean_texts_have_notes_only(card: BackboneCard) -> None:
    found = _audit(Texts(_rows()), card)
    assert {finding.severity for finding in found.values()} == {"note"}
    assert {"class-counts", "no-groups", "text-lengths"} <= set(found)


def test_a_random_split_of_a_set_with_a_group_column(card: BackboneCard) -> None:
    found = _audit(Texts(_rows(patient=lambda i: f"p{i // 4}")), card)
    assert found["group-column-overlap"].severity == "error"


def test_all_that_setup_refuses_is_reported_and_the_rest_too(card: BackboneCard) -> None:
    rows = _rows(taken=lambda i: f"2024-01-{28 - i // 2:02}")
    splits = ["train"] * 30 + ["test"] * 10
    rows = [Record(r.id, r.input, r.label, s, meta=r.meta) for r, s in zip(rows, splits, strict=True)]  # type: ignore[arg-type]
    rows[0] = Record("r0", rows[0].input, "Bad", "test", group="g", meta=rows[0].meta)
    rows[1] = Record("r1", rows[1].input, None, "train", group="g", meta=rows[1].meta)
    rows[2] = Record("r2", rows[3].input, "bad", "train", meta=rows[2].meta)
    found = _audit(Texts(rows, calibration_fraction=0.0), card)
    errors = {code for code, finding in found.items() if finding.severity == "error"}
    assert errors == {"group-overlap", "missing-label", "class-missing-in-train"}
    assert {"label-case", "duplicates", "time-order"} <= set(found)


def test_what_stops_the_reading_is_a_finding(card: BackboneCard) -> None:
    found = _audit(Texts([*_rows(), _rows()[0]]), card)
    assert "1 ids appear more than once: r0" in found["unusable-data"].message
    found = _audit(Texts(_rows(), negative_class="c"), card)
    assert "No class is `c`" in found["unusable-data"].message
    assert "class-counts" in found  # the records were read before


def test_near_duplicates_up_to_a_number_of_records(card: BackboneCard) -> None:
    rows = [*_rows(39), Record("again", _rows()[0].input + " s", "a")]
    assert "near-duplicates-not-searched" not in _audit(Texts(rows), card, near_limit=40)
    found = _audit(Texts(rows), card, near_limit=39)
    assert "40 records, above 39" in found["near-duplicates-not-searched"].message
    assert not {"near-duplicates", "near-duplicates-across-splits"} & set(found)


def test_labels_that_were_taken_together_are_checked_as_read(card: BackboneCard) -> None:
    rows = [Record(row.id, row.input, "b" if place < 3 else "a") for place, row in enumerate(_rows())]
    data = Texts(rows)
    of_classes = {"class-missing-in-split", "class-imbalance", "few-records"}
    assert of_classes & set(_audit(data, card))
    data.records = take_together(data.records, "a")
    assert not of_classes & {finding.code for finding in audit_data(data, card)}
    found = {finding.code: finding for finding in audit_data(data, card)}
    assert found["class-counts"].message.startswith("2 classes: train")
    assert " b " in found["class-counts"].message
    assert "defect" not in found["class-counts"].message


@pytest.mark.parametrize(("strict", "severity"), [(True, "error"), (False, "warning")])
def test_unreadable_and_empty_files(
    make_folder: Callable[..., Path], card: BackboneCard, strict: bool, severity: str
) -> None:
    from recipes.vision.data import VisionDataModule

    root = make_folder()
    (root / "bad" / "lot0_0.png").write_bytes(b"")
    (root / "good" / "lot0_1.png").write_bytes((root / "good" / "lot0_1.png").read_bytes()[:60])
    data = VisionDataModule(str(root), on_bad_file="skip")
    with pytest.warns(UserWarning, match="2 of 40 records are left out"):
        found = _audit(data, card, bad_files_are_errors=strict)["unreadable-file"]
    assert (found.severity, found.count) == (severity, 2)
    assert "1 of them empty files" in found.message
    assert found.examples[0].startswith("bad/lot0_0.png (Cannot read the image")


def test_pictures_that_were_not_opened_before_are_opened_once(
    make_folder: Callable[..., Path], card: BackboneCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_transfer.data import images
    from recipes.vision.data import VisionDataModule

    opened: list[object] = []
    look = images.inspect_image
    monkeypatch.setattr(images, "inspect_image", lambda image, limit: (opened.append(image), look(image, limit))[1])
    for check in (True, False):
        opened.clear()
        data = VisionDataModule(str(make_folder(root=f"images-{check}")), check_data=check)
        found = _audit(data, card)
        assert "40 images of 1 size" in found["image-sizes"].message
        assert len(opened) == len(set(opened)) == 40
        assert data._for_workers()._facts == {}


def test_records_of_any_kind() -> None:
    rows = [Record("1", object(), "free", "train"), Record("2", object(), "Free", "test")]
    assert [f.code for f in audit_records(rows) if f.severity == "warning"][:1] == ["label-case"]
    assert count_records(rows) == {"train": 1, "test": 1}
    assert audit_records([]) == []


def test_texts_are_no_classes() -> None:
    rows = [Record(str(i), None, text, "train") for i, text in enumerate(["hello", "Hello", "you"])]
    assert {finding.code for finding in audit_records(rows)} >= {"class-counts", "label-case"}
    assert [finding.code for finding in audit_records(rows, by_class=False)] == ["no-groups"]
