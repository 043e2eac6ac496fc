import csv
import io
import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from lightning_transfer.data.texts_tables import TextTable, cell_text
from lightning_transfer.errors import DataError

ROWS = [
    ["id", "body", "label"],
    ["1", 'Geht nicht, "gar nicht"\nseit gestern – schön', "a"],
    ["2", "x;y\r\nz", "b"],
    ["3", "Größe €", ""],
]


def as_csv(rows: list[list[str]] = ROWS, delimiter: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def read(path: Path, **options: str) -> list[dict[str, object]]:
    rows = list(TextTable(path, **options))
    assert not [row.problem for row in rows if row.problem]
    assert [row.place for row in rows] == list(range(len(rows)))
    return [dict(row.values) for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_agrees_with_the_csv_module_in_every_encoding(write, encoding: str, delimiter: str) -> None:
    text = as_csv(delimiter=delimiter)
    expected = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    table = TextTable(write(text.encode(encoding)))
    assert [dict(row.values) for row in table] == expected
    assert bool(table.mended) == (encoding == "cp1252")
    assert table.columns == ROWS[0]


def test_a_file_of_two_encodings_is_read_line_by_line(write) -> None:
    table = TextTable(write("body\nschön\n".encode() + "größer\n".encode("cp1252") + "Öl\n".encode()))
    assert [row.values["body"] for row in table] == ["schön", "größer", "Öl"]
    assert table.mended == {"lines in Windows-1252": 1}


def test_line_ends_of_old_exports(write) -> None:
    assert read(write('body,n\ra,1\r"b\rc",2\r')) == [{"body": "a", "n": "1"}, {"body": "b\rc", "n": "2"}]


def test_nul_characters_are_left_out_and_counted(write) -> None:
    table = TextTable(write(b"body\nbr\x00oken\x00\nand a line that is long enough to be no UTF-16\n"))
    assert next(iter(table)).values == {"body": "broken"}
    assert table.mended == {"NUL characters": 2}


def test_a_cell_of_a_megabyte(write) -> None:
    before = csv.field_size_limit(1000)
    assert len(str(read(write("body,n\n" + "ab " * 400_000 + ",1\n"))[0]["body"])) == 1_200_000
    assert csv.field_size_limit(before) == 1000


def test_a_row_of_another_length_is_yielded_with_its_problem(write) -> None:
    rows = list(TextTable(write('a,b\n1,2\n\n"x\ny"\n1,2,3\n')))
    assert [(row.number, row.problem) for row in rows] == [
        (2, ""),
        (3, "line 5 has 1 cells, the header has 2"),
        (4, "line 6 has 3 cells, the header has 2"),
    ]


def test_json_lines_agree_with_json(write) -> None:
    values = [{"id": 1, "body": "schön", "label": ["a", "b"]}, {"id": 2, "extra": None}]
    lines = "\ufeff" + "\n\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n"
    table = TextTable(write(lines, "t.jsonl"))
    assert [dict(row.values) for row in table] == values
    assert table.columns == ["id", "body", "label", "extra"]
    assert [row.number for row in table] == [1, 3]


def test_a_line_that_is_no_object(write) -> None:
    rows = list(TextTable(write('{"a": 1}\n[1]\n{"a": \n"x"\n', "t.jsonl")))
    assert [row.problem.split(" (")[0] for row in rows] == [
        "",
        "line 2 is a list, not an object of columns",
        "line 3 is not JSON",
        "line 4 is a str, not an object of columns",
    ]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    times = [datetime(2025, 6, 3, 10, 11), None]
    columns = {"id": [1, None], "body": ["a", "ü"], "label": [["x", "y"], []], "time": times}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    rows = read(tmp_path / "t.parquet")
    assert [{name: values[place] for name, values in columns.items()} for place in range(2)] == rows
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(DataError, match="Cannot read the table"):
        list(TextTable(tmp_path / "broken.parquet"))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"t.parquet` is Parquet, and pyarrow is not installed. Run `pip install pyarrow`"
    ):
        list(TextTable(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (b"", "t.csv", "t.csv` is empty"),
        (b"", "t.jsonl", "has no row"),
        (b"body,label\n", "t.csv", r"has a header \(body, label\) and no row"),
        (b"body,body\na,b\n", "t.csv", "column `body` twice"),
        (b'body\n"never closed\nx\n', "t.csv", r"not a CSV file that can be read: .*\(line 3\)"),
        (b'body\n"a" b\n', "t.csv", r"doubled \(\"\"\)"),
        (b"PK\x03\x04rest", "t.csv", "is a spreadsheet or zip archive. Save it as CSV UTF-8"),
        (b"\x1f\x8brest", "t.jsonl", "is compressed"),
        ("body\nx\n".encode("utf-16-le"), "t.csv", r"is no text \(7 of its first 14 bytes are NUL\)"),
        (b"\xff\xfeb", "t.csv", "begins as UTF-16 text and is none"),
        (b"x", "t.xlsx", "no table that can be read. Known endings: .csv, .jsonl"),
    ],
)
def test_what_is_no_table_is_a_clear_error(write, content: bytes, name: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        list(TextTable(write(content, name)))


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv`: No such file"):
        list(TextTable(tmp_path / "nothing.csv"))


def test_rows_are_read_one_by_one(write) -> None:
    rows = iter(TextTable(write("a\n1\n2\n" + '"never closed')))
    assert [next(rows).values, next(rows).values] == [{"a": "1"}, {"a": "2"}]
    with pytest.raises(DataError):
        next(rows)


def test_cells_as_text() -> None:
    assert cell_text(float("nan")) == ""
    assert cell_text({"a": datetime(2025, 1, 2)}) == '{"a": "2025-01-02 00:00:00"}'
    assert cell_text(datetime(2025, 1, 2, 3)) == "2025-01-02T03:00:00"
