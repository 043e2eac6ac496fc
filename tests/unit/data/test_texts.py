import json
from pathlib import Path

import pytest

from lightning_transfer.data.texts import AUTO_REPLY, read_tickets
from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

PLAIN = TextCleaning(phones=False)
HEADER = "id,subject,body,label,group,time,language,split,shop\n"


def read(path: Path, **options: object):
    return read_tickets(path, **{"cleaning": PLAIN, **options})


def test_every_column_has_its_place(write) -> None:
    path = write(HEADER + "7,Lampe,Ist dunkel,technical,c1,2025-06-03,de,Validation,north\n")
    record = Record(
        "7", "Lampe\n\nIst dunkel", "technical", "val", "c1",
        {"shop": "north", "time": "2025-06-03", "language": "de"},
    )  # fmt: skip
    assert read(path).records == [record]


def test_columns_can_have_any_name(write) -> None:
    path = write("nr,text,queue,who,came,lang\n1,hi,a,c,2025-01-01,en\n")
    tickets = read(
        path, id_column="nr", body_column="text", label_column="queue", group_column="who", time_column="came",
        language_column="lang",
    )  # fmt: skip
    assert tickets.records == [Record("1", "hi", "a", None, "c", {"time": "2025-01-01", "language": "en"})]


@pytest.mark.parametrize("role", ["body", "subject", "label", "id", "group", "split", "time", "language"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_named_column_that_is_missing(write, role: str, name: str) -> None:
    content = (
        "body,label\nhi,a\n" if name == "t.csv" else '{"body": "hi", "label": "a"}\n{"body": "ho", "label": "b"}\n'
    )
    with pytest.raises(DataError, match=rf"No column `labl` in .*{name}` \(`{role}_column`\). Did you mean `label`"):
        read(write(content, name), **{f"{role}_column": "labl"})


def test_prediction_needs_no_labels(write) -> None:
    path = write("body\nhi\n")
    with pytest.raises(DataError, match="No column `label`"):
        read(path)
    assert read(path, label_optional=True).records == [Record("row 2", "hi")]
    assert read(path, label_column=None).records == [Record("row 2", "hi")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,,  ,a", "the column `body` is empty"),
        ("1,<br>,<p></p>,a", None),
        ("1,,<p> </p>,a", "nothing is left of the text"),
        ("0,x,y,a", "`0` is already the id of row 2"),
        ("1,x,y", "line 3 has 3 cells, the header has 4. Cells that hold"),
        ("1,x,y,a|b", "2 labels"),
    ],
)
def test_a_bad_row_stops_or_is_skipped_with_its_place(write, row: str, reason: str | None) -> None:
    path = write(f"id,subject,body,label\n0,x,first,a\n{row}\n2,x,last,a\n")
    tickets = read(path, on_bad_file="skip")
    assert len(tickets.records) + len(tickets.skipped) == tickets.num_rows == 3
    if reason is None:
        assert not tickets.skipped
        return
    with pytest.raises(DataError, match=r"t.csv`, row 3: .*"):
        read(path)
    assert [record.id for record in tickets.records] == ["0", "2"]
    [skip] = tickets.skipped
    assert skip.position == 1
    assert skip.reason.startswith(reason)


def test_an_unknown_split_and_unknown_class(write) -> None:
    with pytest.raises(DataError, match=r"row 2: `split`: unknown split `trian`. Did you mean `train`"):
        read(write("body,label,split\nhi,a,trian\n"))
    with pytest.raises(DataError, match=r"row 2: `c` is none of the `classes`"):
        read(write("body,label\nhi,c\n"), classes=["a", "b"])


def test_no_row_is_left(write) -> None:
    with pytest.raises(DataError, match=r"No row of .* can be used: row 2: the column `body` is empty"):
        read(write("body,label\n ,a\n"), on_bad_file="skip")


def test_lists_of_labels_in_json_lines(write) -> None:
    rows = [
        {"body": "a", "label": ["login", "billing"], "n": 3, "nested": {"x": [1]}},
        {"body": "b", "label": "other"},
        {"body": "c", "label": None},
        {"body": "d", "label": "billing"},
    ]
    path = write("".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    tickets = read(path, task="multilabel", out_of_scope="other", unlabelled="pool")
    assert tickets.classes == ("billing", "login")
    assert [record.label for record in tickets.records] == [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)]
    assert tickets.records[0].meta == {"n": "3", "nested": '{"x": [1]}'}
    assert [(record.id, record.label) for record in tickets.pool] == [("row 3", None)]
    assert [finding.code for finding in tickets.findings()] == ["unlabelled-pool"]


def test_unlabelled_rows_stay_unless_they_are_taken_apart(write) -> None:
    tickets = read(write("body,label\na,x\nb,\n"))
    assert [record.label for record in tickets.records] == ["x", None]
    assert not tickets.pool


def test_levels_of_labels(write) -> None:
    path = write("body,label\na,billing / refund\nb,billing/invoice\nc,other\n")
    assert read(path, label_level=1, out_of_scope="other").classes == ("billing",)
    assert read(path).classes == ("billing / refund", "billing/invoice", "other")


def test_automatic_replies_are_removed_or_marked(write) -> None:
    auto = '2,Out of office: lamp,"Hi,\nI am away until Monday.",a'
    path = write(f"id,subject,body,label\n1,lamp,dark,a\n{auto}\n3,x,y,b\n")
    tickets = read(path)
    assert ([r.id for r in tickets.records], [r.id for r in tickets.auto_replies]) == (["1", "3"], ["2"])
    assert AUTO_REPLY not in tickets.records[0].meta
    [finding] = tickets.findings()
    assert (finding.code, finding.count, finding.examples) == ("auto-replies", 1, ("2",))
    marked = read(path, auto_replies="mark").records
    assert [(record.id, record.meta[AUTO_REPLY]) for record in marked] == [("1", ""), ("2", "yes"), ("3", "")]


def test_automatic_replies_alone(write) -> None:
    with pytest.raises(DataError, match="can be used: row 2: auto-reply"):
        read(write("subject,body,label\nOut of office,away,a\n"))


def test_wrong_encodings_are_said(write) -> None:
    path = write("body,label\nschön,a\ngrün,b\n".encode("cp1252"))
    with pytest.warns(UserWarning, match="not clean UTF-8: lines in Windows-1252 2"):
        tickets = read(path)
    assert [record.input for record in tickets.records] == ["schön", "grün"]
    [finding] = tickets.findings()
    assert (finding.code, finding.severity, finding.count) == ("mended-characters", "warning", 2)


def test_cleaning_is_counted_and_can_be_left_out(write) -> None:
    path = write('subject,body,label\nRe: x,"<p>Ring a@example.com</p>",a\n,"plain\n> old",a\n')
    tickets = read(path)
    assert [record.input for record in tickets.records] == ["x\n\nRing [EMAIL]", "plain"]
    assert tickets.cleaned == {"html": 1, "emails": 1, "quotes": 1, "subject prefixes": 1}
    assert "emails 1, html 1, quotes 1, subject prefixes 1" in tickets.findings()[0].message
    raw = TextCleaning(html=False, quotes=False, signatures=False, emails=False, ibans=False, cards=False, phones=False)
    assert [record.input for record in read(path, cleaning=raw).records] == [
        "Re: x\n\n<p>Ring a@example.com</p>",
        "plain\n> old",
    ]


def test_a_text_of_a_megabyte(write) -> None:
    text = "My lamp is dark. " * 60_000
    tickets = read(write(f"body,label\n{text},a\n"))
    assert len(tickets.records[0].input) == len(text.strip())


def test_places_count_all_rows(write) -> None:
    tickets = read(write("id,body,label\n1,,a\n2,,a\n3,x,a\n4,,a\n"), on_bad_file="skip")
    assert [(skip.record.id, skip.position) for skip in tickets.skipped] == [("1", 0), ("2", 1), ("4", 3)]
    assert [record.id for record in tickets.records] == ["3"]
