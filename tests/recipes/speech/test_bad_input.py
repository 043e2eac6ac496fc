"""Each bad input that a call centre has: a clear error, a counted skip, or a finding; and a row out for each row in."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_transfer.data import audit_data
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard
from recipes.speech.data import SpeechDataModule
from tests.data.speech.make import noise, say, utterances, write, write_rows, write_set
from tests.recipes.speech.test_data import _schema

Make = Callable[..., SpeechDataModule]


def _missing(folder: Path, row: dict[str, Any]) -> None:
    (folder / row["path"]).unlink()


def _empty(folder: Path, row: dict[str, Any]) -> None:
    (folder / row["path"]).write_bytes(b"")


def _cut(folder: Path, row: dict[str, Any]) -> None:
    path = folder / row["path"]
    path.write_bytes(path.read_bytes()[:2000])


def _text(folder: Path, row: dict[str, Any]) -> None:
    (folder / row["path"]).write_text("This is a text.")


def _nan(folder: Path, row: dict[str, Any]) -> None:
    wave = noise(0.5)
    wave[100] = np.nan
    write(folder / row["path"], wave, subtype="FLOAT")


def _infinite(folder: Path, row: dict[str, Any]) -> None:
    wave = noise(0.5)
    wave[100] = -np.inf
    write(folder / row["path"], wave, subtype="FLOAT")


def _no_samples(folder: Path, row: dict[str, Any]) -> None:
    write(folder / row["path"], np.zeros(0, dtype=np.float32))


def _outside(folder: Path, row: dict[str, Any]) -> None:
    row["path"] = "../secret.wav"


def _absolute(folder: Path, row: dict[str, Any]) -> None:
    row["path"] = str(write(folder.parent / "other" / "a.wav", noise(0.3)))


def _link(folder: Path, row: dict[str, Any]) -> None:
    target = write(folder.parent / "other" / "b.wav", noise(0.3))
    (folder / row["path"]).unlink()
    (folder / row["path"]).symlink_to(target)


def _no_path(folder: Path, row: dict[str, Any]) -> None:
    row["path"] = ""


def _behind(folder: Path, row: dict[str, Any]) -> None:
    row["offset"] = 99


def _word(folder: Path, row: dict[str, Any]) -> None:
    row["duration"] = "short"


UNUSABLE: dict[str, tuple[Callable[[Path, dict[str, Any]], None], str]] = {
    "missing": (_missing, "there is no such file"),
    "empty": (_empty, "the file is empty"),
    "cut off": (_cut, "the file is cut off; its header promises"),
    "no audio": (_text, "no audio file that libsndfile knows"),
    "NaN": (_nan, "it holds NaN or infinite values"),
    "infinite": (_infinite, "it holds NaN or infinite values"),
    "no samples": (_no_samples, r"it holds no sound \(0 samples\)"),
    "outside": (_outside, r"`../secret.wav` leaves the root"),
    "absolute": (_absolute, r"other/a.wav` leaves the root"),
    "link": (_link, "leaves the root"),
    "no path": (_no_path, "the column `path` is empty"),
    "offset behind the end": (_behind, r"from 99 s on: the file is \d"),
    "a word for a number": (_word, "`duration` is `short`. Expected seconds"),
}


def _table(folder: Path, spoil: Callable[[Path, dict[str, Any]], None]) -> Path:
    rows = [{**row, "offset": ""} for row in write_set(folder, utterances(18, 6))]
    spoil(folder, rows[7])
    return write_rows(folder / "m.csv", rows)


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_stops_is_skipped_or_has_its_row(
    tmp_path: Path, module: Make, card: BackboneCard, name: str
) -> None:
    spoil, message = UNUSABLE[name]
    file = _table(tmp_path / "data", spoil)
    with pytest.raises(DataError, match=f"(?s){message}"):
        module(file).setup("fit")
    skipping = module(file, on_bad_file="skip")
    with pytest.warns(UserWarning, match="1 of 18 records are left out"):
        skipping.setup("fit")
    (skip,) = skipping.list_skipped()
    assert re.search(message, skip.reason)
    assert len(skipping.records) == 17
    finding = next(item for item in audit_data(skipping) if item.code == "unreadable-file")
    assert finding.count == 1
    # Of a prediction nothing stops the rest, whatever is said of bad files.
    predicting = module(file)
    predicting.use_schema(_schema(card, tmp_path))
    with pytest.warns(UserWarning, match="1 of 18 records are left out"):
        predicting.setup("predict")
    (skip,) = predicting.list_skipped("predict")
    assert (skip.position, skip.record.id) == (7, "u007")
    assert len(predicting.records_for("predict")) == 17


def _spoil_text(rows: list[dict[str, Any]], text: str) -> None:
    rows[7]["text"] = text


def _questionable(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of one speaker each, so that the divisions stay."""
    loud = np.clip(8 * say(rows[0]["text"]), -1, 1)
    write(folder / rows[0]["path"], loud)
    write(folder / rows[1]["path"], np.zeros(16_000, dtype=np.float32))
    write(folder / rows[2]["path"], say(rows[2]["text"]), subtype="PCM_U8")
    write(folder / rows[3]["path"], say(rows[3]["text"], rate=192_000), 192_000)
    write(folder / rows[4]["path"], np.stack([say(rows[4]["text"])] * 2, axis=1))
    write(folder / rows[5]["path"], say(rows[5]["text"], rate=8000), 8000, subtype="ULAW")
    rows[6]["duration"] = 9.0
    write(folder / rows[9]["path"], say(rows[8]["text"], pitch=1.1, seed=8))
    write(folder / rows[8]["path"], say(rows[8]["text"], pitch=1.1, seed=8))
    write(folder / rows[10]["path"], np.tile(noise(10.0), 61))
    rows[1]["duration"], rows[9]["duration"], rows[10]["duration"] = 1.0, rows[8]["duration"], 610.0


@pytest.fixture
def heard(tmp_path: Path, module: Make) -> dict[str, Any]:
    rows = write_set(tmp_path, utterances(18, 6))
    _questionable(tmp_path, rows)
    data = module(write_rows(tmp_path / "m.csv", rows), check_data=True)
    with pytest.warns(UserWarning, match="are longer than 30 s"):
        data.setup("fit")
    assert data.list_skipped() == []
    return {finding.code: finding for finding in audit_data(data)}


@pytest.mark.parametrize(
    ("code", "severity", "who", "words"),
    [
        ("clipped-audio", "warning", "u000", "are clipped"),
        ("silent-audio", "warning", "u001", "nothing is above -60 dB"),
        ("low-bit-depth", "note", "u002", "8 bits a sample"),
        ("mixed-down", "note", "u004", "several channels, whose mean is taken"),
        ("narrow-band", "note", "u005", "fewer than the 16000 samples a second"),
        ("wrong-duration", "warning", "u006 (stated 9.00 s", "states another duration"),
        ("duplicate-labels", "warning", "u008", "The same sound has different labels"),
    ],
)
def test_what_is_questionable_is_a_finding(
    heard: dict[str, Any], code: str, severity: str, who: str, words: str
) -> None:
    finding = heard[code]
    assert (finding.severity, finding.count) == (severity, 1)
    assert who in finding.examples[0]
    assert words in finding.message


def test_kinds_of_recordings_are_counted(heard: dict[str, Any]) -> None:
    assert "192000 Hz PCM_16 1" in heard["mixed-audio"].message
    assert "8000 Hz ULAW 1" in heard["mixed-audio"].message


def test_long_calls_are_not_learnt_from_but_recognised(tmp_path: Path, module: Make, card: BackboneCard) -> None:
    rows = write_set(tmp_path, utterances(18, 6))
    write(tmp_path / rows[10]["path"], np.tile(noise(10.0), 62))
    train = [{**row, "split": "test" if row["speaker"] == "s4" else ""} for row in rows]
    data = module(write_rows(tmp_path / "m.csv", train))
    data.setup("fit")
    assert "u010" in {record.id for record in data.records_for("test")}
    pieces = [index for batch in data.test_dataloader() for index in batch.index.tolist()]
    place = [record.id for record in data.records_for("test")].index("u010")
    assert sum(index[0] == place for index in pieces) == 24  # (620 - 4) / 26
    finding = next(item for item in audit_data(data) if item.code == "long-audio")
    assert finding.examples == ("u010",)


@pytest.mark.parametrize("text", ["", "   "])
def test_empty_transcripts_are_left_out_of_training_and_counted(
    tmp_path: Path, module: Make, card: BackboneCard, text: str
) -> None:
    rows = write_set(tmp_path / "data", utterances(18, 6))
    _spoil_text(rows, text)
    file = write_rows(tmp_path / "data" / "m.csv", rows)
    data = module(file)
    with pytest.warns(UserWarning, match="1 of 18 recordings .* have no transcript and are left out: u007"):
        data.setup("fit")
    assert len(data.records) == 17
    finding = next(item for item in audit_data(data) if item.code == "no-transcript")
    assert (finding.severity, finding.examples) == ("warning", ("u007",))
    predicting = module(file)
    predicting.use_schema(_schema(card, tmp_path))
    predicting.setup("predict")
    assert len(predicting.records_for("predict")) == 18


def test_characters_outside_the_vocabulary_are_counted_with_examples(tmp_path: Path, module: Make) -> None:
    rows = write_set(tmp_path, utterances(18, 6))
    _spoil_text(rows, "caf\u00e9 24 caf\u00e9")
    data = module(write_rows(tmp_path / "m.csv", rows))
    data.setup("fit")
    finding = next(item for item in audit_data(data) if item.code == "outside-vocabulary")
    assert finding.count == 4
    assert finding.examples == ("\u00e9 (u007)", "2 (u007)", "4 (u007)")
    assert "`\u00e9` 2, `2` 1, `4` 1" in finding.message
    assert "left out of the targets" in finding.message


def test_a_label_longer_than_its_frames_is_left_out_of_training(tmp_path: Path, module: Make) -> None:
    rows = write_set(tmp_path, utterances(18, 6))
    _spoil_text(rows, "please help me now " * 30)
    data = module(write_rows(tmp_path / "m.csv", [{**row, "split": _split(row)} for row in rows]))
    with pytest.warns(UserWarning, match="have more letters than their sound has frames"):
        data.setup("fit")
    assert "u007" not in {record.id for record in data.records}
    codes = {finding.code: finding for finding in audit_data(data)}
    assert codes["too-long-for-its-frames"].examples[0].startswith("u007")
    _spoil_text(rows, "please")
    rows[5]["text"] = "please help me now " * 30
    tested = module(write_rows(tmp_path / "m.csv", [{**row, "split": _split(row)} for row in rows]))
    tested.setup("fit")
    assert "u005" in {record.id for record in tested.records_for("test")}  # it is judged, and said
    codes = {finding.code: finding for finding in audit_data(tested)}
    assert codes["too-long-for-sound"].examples[0].startswith("u005")


def _split(row: dict[str, Any]) -> str:
    return {"s4": "val", "s5": "test"}.get(row["speaker"], "train")


def test_a_command_in_wav_scp_is_refused(tmp_path: Path, module: Make, card: BackboneCard) -> None:
    write(tmp_path / "a.wav", noise(0.4))
    mark = tmp_path / "ran"
    (tmp_path / "wav.scp").write_text(f"u1 a.wav\nu2 touch {mark} |\n")
    (tmp_path / "text").write_text("u1 hello\nu2 you\n")
    with pytest.raises(DataError, match=r"wav.scp has the command `touch .*commands are never run"):
        module(tmp_path).setup("fit")
    data = module(tmp_path)
    data.use_schema(_schema(card, tmp_path))
    data.setup("predict")
    assert [skip.record.id for skip in data.list_skipped("predict")] == ["u2"]
    assert not mark.exists()


def test_repeated_ids(tmp_path: Path, module: Make) -> None:
    rows = write_set(tmp_path, utterances(18, 6))
    rows[7]["id"] = "u003"
    file = write_rows(tmp_path / "m.csv", rows)
    with pytest.raises(DataError, match=r"row 9: `u003` is already the record of row 5"):
        module(file).setup("fit")
    skipping = module(file, on_bad_file="skip")
    skipping.setup("fit")
    assert [skip.record.id for skip in skipping.list_skipped()] == ["row 9"]
