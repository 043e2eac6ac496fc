import csv
import io
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from lightning_transfer.data.splits import assign_folds
from lightning_transfer.data.text_neighbours import drop_copies
from lightning_transfer.data.texts import Tickets, read_tickets
from lightning_transfer.data.texts_clean import TextCleaning
from recipes.nlp.sample.make import COLUMNS, OUT_OF_SCOPE, PATH, QUEUES, Sample, make_sample, read_phrases, write_csv


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample()


def read(cleaning: TextCleaning | None = None) -> Tickets:
    return read_tickets(
        PATH, label_column="queue", group_column="customer", time_column="created", out_of_scope=OUT_OF_SCOPE,
        cleaning=cleaning or TextCleaning(phones=False),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tickets() -> Tickets:
    return read()


def test_the_file_is_made_again_byte_for_byte(sample: Sample, tmp_path: Path) -> None:
    assert write_csv(sample, tmp_path / "again.csv").read_bytes() == PATH.read_bytes()


def test_another_seed_is_another_set() -> None:
    assert make_sample(1).rows != make_sample(2).rows


def test_every_queue_has_many_messages_in_two_languages() -> None:
    phrases = read_phrases()
    for queue in QUEUES:
        own = {lang: [text for (tongue, name), rows in phrases.items() if tongue == lang and name.split("/")[0] == queue
                      for text in rows] for lang in ("en", "de")}  # fmt: skip
        texts = own["en"] + own["de"]
        assert len(set(texts)) == len(texts) >= 25, queue
        assert min(len(own["en"]), len(own["de"])) >= 10, queue


def test_what_the_set_holds(sample: Sample) -> None:
    rows = sample.rows
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) >= 640
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["queue"].split("/")[0] for row in rows} == set(QUEUES)
    assert len({row["queue"] for row in rows if "/" in row["queue"]}) >= 6
    assert min(Counter(row["queue"] for row in rows).values()) >= 25
    assert min(Counter(row["language"] for row in rows).values()) >= 0.25 * len(rows)
    created = [row["created"] for row in rows]
    assert created == sorted(created)
    assert created[0] < "2025-01-20"
    assert created[-1] > "2025-09-25"
    assert sum(count > 1 for count in Counter(row["customer"] for row in rows).values()) > 100
    assert sum("<html>" in row["body"] for row in rows) > 30
    assert max(len(row["body"]) for row in rows) > 1500


def test_a_new_product_comes_late(sample: Sample) -> None:
    first = min(row["created"] for row in sample.rows if "Lumo" in row["body"] + row["subject"])
    assert first > "2025-07-15"
    late = [row for row in sample.rows if row["created"] > "2025-07-15"]
    assert sum("Lumo" in row["body"] + row["subject"] for row in late) > 0.1 * len(late)


def test_wrong_labels_are_known(sample: Sample) -> None:
    queue = {row["id"]: row["queue"] for row in sample.rows}
    assert 10 <= len(sample.wrong) <= 20
    assert all(queue[name].split("/")[0] != right.split("/")[0] for name, right in sample.wrong.items())
    # Wherever a message stands under a queue that is not its own, that is known.
    own = defaultdict(set)
    for (_, name), texts in read_phrases().items():
        for text in texts:
            own[text].add(name)
    strange = {name for name, message in sample.messages.items() if own[message] and queue[name] not in own[message]}
    assert strange <= set(sample.wrong)
    assert strange


def test_automatic_replies_are_found_and_nothing_else(sample: Sample, tickets: Tickets) -> None:
    assert {record.id for record in tickets.auto_replies} == sample.auto_replies
    assert len(sample.auto_replies) >= 10
    assert not tickets.skipped
    assert not tickets.mended


def test_every_message_survives_the_cleaning(sample: Sample, tickets: Tickets) -> None:
    texts = {record.id: " ".join(record.input.split()) for record in tickets.records}
    for name, message in sample.messages.items():
        for piece in re.split(r"\{\w+\}", message):
            assert " ".join(piece.split()) in texts[name], (name, piece, texts[name])


def test_quotes_and_signatures_go(sample: Sample, tickets: Tickets) -> None:
    replies = [text for (_, section), texts in read_phrases().items() if section == "reply" for text in texts]
    assert len(sample.threads) > 50
    for record in tickets.records:
        assert not any(text[:40] in record.input for text in (*replies, "Norvik Support", "support@norvik"))
        assert not re.search(r"^(--|Sent from|Von meinem|MfG|LG|Cheers,|Kind regards,)\s*$", record.input, re.MULTILINE)


def test_nothing_personal_is_left(sample: Sample) -> None:
    pytest.importorskip("phonenumbers")
    texts = {record.id: record.input for record in read(TextCleaning()).records}
    left = [(name, item) for name, items in sample.private.items() for item in items if item in texts[name]]
    assert left == []
    assert sum(map(len, sample.private.values())) > 80


def test_copies_are_found(sample: Sample, tickets: Tickets) -> None:
    pytest.importorskip("datasketch")
    copies = drop_copies(tickets.records)
    known = {frozenset(pair) for pair in sample.copies.items()}
    found = {frozenset((name, original)) for name, (original, _) in copies.originals.items()}
    removed = set(copies.originals)
    assert all(pair & removed for pair in known)
    # Short messages may be the same without one being sent again, but that must stay the exception.
    assert len(found) < 2 * len(known)


def test_the_table_is_quoted_as_the_csv_module_reads_it(sample: Sample) -> None:
    stream = io.StringIO(PATH.read_text(encoding="utf-8"), newline="")
    assert list(csv.DictReader(stream)) == [
        {name: cell.replace("\r\n", "\n") for name, cell in row.items()} for row in sample.rows
    ]


def test_a_plain_baseline_is_neither_perfect_nor_lost(tickets: Tickets) -> None:
    records = tickets.records
    labels = np.array([str(record.label).split("/")[0] for record in records])
    texts = np.array([record.input for record in records], dtype=object)
    folds = np.array(assign_folds(records, 4))
    predicted = np.empty(len(records), dtype=object)
    for fold in range(4):
        train, test = folds != fold, folds == fold
        vectors = TfidfVectorizer(sublinear_tf=True)
        model = LogisticRegression(C=10, max_iter=200, class_weight="balanced")
        model.fit(vectors.fit_transform(texts[train]), labels[train])
        predicted[test] = model.predict(vectors.transform(texts[test]))
    assert 0.6 < f1_score(labels, predicted.astype(str), average="macro") < 0.9
