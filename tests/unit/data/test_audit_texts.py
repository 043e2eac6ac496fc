import csv
import os
import sys
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data.audit_texts import text_findings
from lightning_transfer.data.text_neighbours import normalise_text
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

pytest.importorskip("datasketch")
BANKING = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "banking77"


def _find(records: list[Record]) -> dict[str, Finding]:
    return {finding.code: finding for finding in text_findings(records)}


def _records(*rows: tuple[str, str, str]) -> list[Record]:
    return [Record(f"r{i}", text, label, split) for i, (split, label, text) in enumerate(rows)]  # type: ignore[arg-type]


def test_texts_are_compared_without_case_signs_and_forms() -> None:
    assert normalise_text("Top-up\u00a0 FAILED!!\n") == "top up failed"
    assert normalise_text("ﬁne") == normalise_text("FINE")
    assert normalise_text("größer") != normalise_text("grober")


def test_exact_and_near_duplicates_across_splits() -> None:
    fillers = [("test", "other", f"question number {word * 3} about {word}") for word in ("cards", "loans", "fees")]
    found = _find(
        _records(
            ("train", "pin", "How do I unblock my PIN after three wrong tries?"),
            ("test", "pin", "how do I unblock my pin, after three wrong tries"),
            ("train", "top_up", "When will the money of my transfer arrive in my account?"),
            ("test", "top_up", "When will the money of my transfers arrive in my account?"),
            ("train", "fee", "What are the fees?"),
            *fillers,
        )
    )
    assert found["duplicates-across-splits"].examples == ("train r0 | test r1 (same text)",)
    near = found["near-duplicates-across-splits"]
    assert near.count == 2
    assert near.examples[0].startswith("train r2 | test r3 (similarity 0.8")


def test_all_records_of_two_near_texts_count() -> None:
    one = "the quick brown fox jumps over the lazy dog and runs away into the forest"
    other = one.replace("jumps", "jumped")
    found = _find(_records(*[("train", "a", one)] * 3, *[("test", "b", other)] * 2))
    assert found["near-duplicates-across-splits"].count == 5
    assert found["near-duplicate-labels"].count == 5


def test_what_minhash_takes_for_alike_is_compared_exactly() -> None:
    words = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima".split()
    # Any two differ in four words of twelve: candidates, with a similarity of 0.6 to 0.7.
    texts = [" ".join("zulu" if place // 2 == i else word for place, word in enumerate(words)) for i in range(6)]
    assert set(_find(_records(*(("train", "a", text) for text in texts)))) == {"text-lengths"}


def test_lengths_and_empty_texts() -> None:
    found = _find(_records(("train", "a", "one two three"), ("train", "a", "  \n"), ("test", "a", "one")))
    assert "3 texts of 0 to 3 words (median 1" in found["text-lengths"].message
    assert (found["empty-text"].severity, found["empty-text"].examples) == ("error", ("r1",))
    assert "duplicates" not in found


def test_signs_alone_are_copies_of_nothing() -> None:
    assert set(_find(_records(("train", "a", "???"), ("test", "a", "!!!")))) == {"text-lengths"}


def test_without_datasketch_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    found = _find(_records(("train", "a", "one"), ("test", "a", "two")))
    assert "pip install datasketch" in found["near-duplicates-not-searched"].advice


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not BANKING.is_dir(), reason=f"needs LT_DATA_DIR: no {BANKING}")
def test_banking77_has_duplicates_across_the_given_files(capsys: pytest.CaptureFixture[str]) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    records = []
    for split in ("train", "test"):
        with (BANKING / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        records += [Record(f"{split}{i + 2}", row["text"], row["category"], split) for i, row in enumerate(rows)]
    found = _find(records)
    with capsys.disabled():
        for finding in found.values():
            print(f"\n{finding.code} ({finding.count}): {finding.message}\n  " + "\n  ".join(finding.examples[:3]))
    # An oracle that shares no code: whole sets, and the exact Jaccard similarity of all pairs with a part of them.
    train = {normalise_text(r.input) for r in records if r.split == "train"}
    copies = [r for r in records if r.split == "test" and normalise_text(r.input) in train]
    across = found["duplicates-across-splits"]
    assert across.count == len({normalise_text(r.input) for r in copies}) == 25
    assert f"test {len(copies)})" in across.message
    texts = [normalise_text(r.input) for r in records]
    runs = CountVectorizer(analyzer="char", ngram_range=(4, 4), binary=True, dtype=np.int32).fit_transform(texts)
    sizes = np.asarray(runs.sum(axis=1)).ravel()
    train_rows = np.array([place for place, r in enumerate(records) if r.split == "train"])
    words = np.array(texts, dtype=object)
    expected = 0
    for start in range(len(train_rows), len(records), 500):
        part = np.arange(start, min(start + 500, len(records)))
        common = (runs[part] @ runs[train_rows].T).toarray()
        similarity = common / np.maximum(sizes[part][:, None] + sizes[train_rows][None] - common, 1)
        same = words[part][:, None] == words[train_rows][None]
        expected += int(((similarity >= 0.8) & ~same).any(axis=1).sum())
    near = found["near-duplicates-across-splits"]
    counted = int(near.message.split("test ")[1].split(")")[0])
    assert 0.98 * expected <= counted <= expected  # MinHash may miss a few, and adds none
    by_id = {record.id: record.input for record in records}
    for example in near.examples:
        one, other = (part.split()[1] for part in example.split(" | "))
        assert SequenceMatcher(None, normalise_text(by_id[one]), normalise_text(by_id[other]), False).ratio() > 0.8, (
            example
        )
