"""Every layout gives the same utterances; each row is in exactly one of the lists."""

import json
from pathlib import Path

import pytest

from lightning_transfer.data.audio_tables import read_utterances
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from tests.data.speech.make import (
    noise,
    utterances,
    write,
    write_jsonl,
    write_kaldi,
    write_ours,
    write_rows,
    write_set,
)
from tests.unit.data.test_audio_layouts import WRITERS

soundfile = pytest.importorskip("soundfile")

ROWS = utterances(9, 3)


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_utterances(tmp_path: Path, name: str) -> None:
    place = WRITERS[name](tmp_path, ROWS)
    found = read_utterances(place, root=tmp_path if name == "kaldi" else None)
    assert found.num_rows == len(found.records) == 9
    assert found.source.layout == name
    assert f"{found.source.title}, `{place}`: 9 utterances of 9 rows" in found.describe()
    by_text = {(record.label.strip('".').lower(), record.group[-2:]): record for record in found.records}
    assert by_text.keys() == {(row["text"], row["speaker"]) for row in ROWS}
    for record in found.records:
        info = soundfile.info(record.input.path)
        assert record.meta["duration"] == pytest.approx(info.duration)
        assert record.input == AudioSegment(record.input.path)
    if name in ("csv", "commonvoice"):
        assert {record.meta["accent"] for record in found.records} == {"north", "south"}
    if name in ("csv", "kaldi", "speechbrain"):
        assert [record.id for record in found.records] == [row["id"] for row in ROWS]
    if name == "csv":
        assert set(found.records[0].meta) == {"accent", "channel", "duration"}
        assert found.claimed.keys() == {row["id"] for row in ROWS}


def test_pieces_of_kaldi_recordings_are_read_where_they_lie(tmp_path: Path) -> None:
    data = write_kaldi(tmp_path, ROWS, segments=True)
    found = read_utterances(data, root=tmp_path)
    whole = {row["id"]: soundfile.info(tmp_path / row["path"]).duration for row in write_set(tmp_path / "again", ROWS)}
    for record in found.records:
        assert record.meta["duration"] == pytest.approx(whole[record.id], abs=1e-3)
    later = [record for record in found.records if record.input.start > 0]
    assert len(later) == 6


def test_an_offset_makes_a_part_and_its_lack_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(3.0))
    rows = [
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "claims less"},
        {"audio_filepath": "a.wav", "offset": 0.0, "duration": 1.0, "text": "first second"},
        {"audio_filepath": "a.wav", "offset": 1.5, "duration": 1.0, "text": "later"},
        {"audio_filepath": "a.wav", "offset": 2.0, "text": "to the end"},
    ]
    found = read_utterances(write_jsonl(tmp_path / "m.json", rows))
    assert [(r.input.start, r.input.duration) for r in found.records] == [(0, None), (0, 1.0), (1.5, 1.0), (2.0, None)]
    assert [record.meta["duration"] for record in found.records] == [3.0, 1.0, 1.0, 1.0]
    assert [record.id for record in found.records] == ["a.wav", "a.wav@0", "a.wav@1.5", "a.wav@2"]
    assert found.claimed == {"a.wav": 1.0, "a.wav@0": 1.0, "a.wav@1.5": 1.0}
    # A whole file whose list claims more is no part beyond its end.
    longer = write_jsonl(tmp_path / "l.json", [{**rows[1], "duration": 7.0}])
    (record,) = read_utterances(longer).records
    assert (record.input.duration, record.meta["duration"]) == (None, 3.0)


def test_columns_have_the_names_that_the_user_gives(tmp_path: Path) -> None:
    found = write_set(tmp_path, ROWS)
    names = {"id": "key", "path": "file", "text": "said", "speaker": "who", "accent": "region", "channel": "line"}
    table = write_rows(tmp_path / "t.csv", [{new: row[old] for old, new in names.items()} for row in found])
    with pytest.raises(DataError, match=r"No column `path` in .* \(`path_column`\).*Columns: key, file, said, who"):
        read_utterances(table)
    read = read_utterances(table, columns=names)
    assert [record.id for record in read.records] == [row["id"] for row in found]
    assert read.records[1].group == "s1"
    assert read.records[1].meta.keys() == {"accent", "channel", "duration"}
    assert "speaker from `who`" in read.describe()
    with pytest.raises(DataError, match=r"No column `wher` in .* \(`speaker_column`\)"):
        read_utterances(table, columns={**names, "speaker": "wher"})
    with pytest.raises(ValueError, match=r"Unknown role `speeker` of a column. Did you mean `speaker`"):
        read_utterances(table, columns={"speeker": "who"})


def test_a_class_instead_of_a_transcript(tmp_path: Path) -> None:
    table = write_ours(tmp_path, ROWS)
    found = read_utterances(table, label_column="accent")
    assert {record.label for record in found.records} == {"north", "south"}


@pytest.mark.parametrize("channel", ["mix", 1])
def test_channels_of_rows(tmp_path: Path, channel) -> None:
    write(tmp_path / "a.wav", noise(0.5, channels=2))
    rows = [{"path": "a.wav", "text": "agent", "side": 0}, {"path": "a.wav", "text": "caller", "side": 1}]
    table = write_rows(tmp_path / "t.csv", rows)
    found = read_utterances(table, channel_number_column="side")
    assert [(record.id, record.input.channel) for record in found.records] == [("a.wav#0", 0), ("a.wav#1", 1)]
    one = write_rows(tmp_path / "one.csv", [{"path": "a.wav", "text": "both"}])
    assert read_utterances(one, channel=channel).records[0].input.channel == channel
    with pytest.raises(DataError, match=r"a.wav` has 2 channels, counted from 0, and channel 2 is asked for"):
        read_utterances(one, channel=2)
    wrong = write_rows(tmp_path / "w.csv", [{**rows[0], "side": "left"}])
    with pytest.raises(DataError, match=r"`side` is `left`. Expected the number of a channel"):
        read_utterances(wrong, channel_number_column="side")


def _broken(folder: Path) -> list[dict[str, object]]:
    """Nine rows, of which the first is good."""
    write(folder / "good.wav", noise(1.0))
    write(folder / "other.wav", noise(1.0, seed=1))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "cut.wav").write_bytes((folder / "good.wav").read_bytes()[:9000])
    write(folder.parent / "outside.wav", noise(0.2))
    good = {"path": "good.wav", "text": "good", "duration": "", "offset": "", "id": ""}
    return [
        {**good, "id": "good"},
        {**good, "path": ""},
        {**good, "path": "../outside.wav"},
        {**good, "path": "none.wav"},
        {**good, "path": "empty.wav"},
        {**good, "path": "cut.wav"},
        {**good, "duration": "long"},
        {**good, "path": "other.wav", "offset": "2.5"},
        {**good, "id": "good"},
        {**good, "path": "other.wav", "text": " "},
    ]


REASONS = [
    "the column `path` is empty",
    "`../outside.wav` leaves the root",
    "there is no such file",
    "the file is empty",
    "the file is cut off",
    "`duration` is `long`. Expected seconds",
    "from 2.5 s on: the file is 1.000 s long",
    "`good` is already the record of row 2",
]


def test_what_cannot_be_used_is_listed_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    table = write_rows(folder / "t.csv", _broken(folder))
    found = read_utterances(table, on_bad_file="skip")
    assert [record.id for record in found.records] == ["good"]
    assert [skip.position for skip in found.skipped] == list(range(1, 9))
    for skip, reason in zip(found.skipped, REASONS, strict=True):
        assert reason in skip.reason
    assert [record.id for record in found.untold] == ["other.wav"]
    predicted = read_utterances(table, predict=True, on_bad_file="skip")
    assert [record.id for record in predicted.records] == ["good", "other.wav"]
    assert len(predicted.records) + len(predicted.skipped) == found.num_rows == 10


@pytest.mark.parametrize("row", range(1, 9))
def test_each_of_them_stops_where_it_may_not_be_skipped(tmp_path: Path, row: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = _broken(folder)
    table = write_rows(folder / "t.csv", [rows[0], rows[row]])
    with pytest.raises(DataError) as caught:
        read_utterances(table)
    assert REASONS[row - 1] in str(caught.value)


def test_without_any_transcript(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [{"path": "a.wav", "text": ""}])
    write(tmp_path / "a.wav", noise(0.2))
    with pytest.raises(DataError, match=r"No row of `.*t.csv` can be used: a.wav: no transcript"):
        read_utterances(table)
    bare = write_rows(tmp_path / "b.csv", [{"path": "a.wav", "other": "x"}])
    with pytest.raises(DataError, match=r"No column `text` in .* \(`text_column`\)"):
        read_utterances(bare)
    (record,) = read_utterances(bare, predict=True).records
    assert record.label is None
    assert record.meta["other"] == "x"
    named = {"text": "said", "speaker": "who", "duration": "length", "accent": "region"}
    (record,) = read_utterances(bare, predict=True, columns=named, label_column="kind").records
    assert record.label is None
    with pytest.raises(DataError, match=r"No column `begin` in .* \(`offset_column`\)"):
        read_utterances(bare, predict=True, columns={"offset": "begin"})
    (record,) = read_utterances(tmp_path, predict=True, columns={"path": "file", "offset": "begin"}).records
    assert record.id == "a.wav"


def test_splits_are_read_for_training_alone(tmp_path: Path) -> None:
    found = write_set(tmp_path, ROWS)
    rows = [{**row, "split": ("train", "dev", "test")[place % 3]} for place, row in enumerate(found)]
    table = write_rows(tmp_path / "t.csv", rows)
    assert {record.split for record in read_utterances(table).records} == {"train", "val", "test"}
    assert {record.split for record in read_utterances(table, predict=True).records} == {None}
    bad = write_rows(tmp_path / "b.csv", [{**rows[0], "split": "learn"}])
    with pytest.raises(DataError, match="unknown split `learn`"):
        read_utterances(bad)


def test_a_damaged_line_of_json_is_a_row(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0.2))
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a"}) + "\n{broken\n")
    found = read_utterances(path, on_bad_file="skip")
    assert found.skipped[0].reason.startswith("line 2 is not JSON")
    with pytest.raises(DataError, match=r"m.jsonl`, row 2: line 2 is not JSON"):
        read_utterances(path)
    assert [record.id for record in found.records] == ["a.wav"]


def test_common_voice_of_old_releases_leaves_the_ending_out(tmp_path: Path) -> None:
    write(tmp_path / "clips" / "a.mp3", noise(0.5))
    rows = [{"client_id": "c", "path": "a", "sentence": "Well."}]
    (record,) = read_utterances(write_rows(tmp_path / "x.tsv", rows, "\t")).records
    assert record.input.path.endswith("clips/a.mp3")
