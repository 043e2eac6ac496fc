"""Kaldi folders as rows; commands are never run."""

from pathlib import Path

import pytest

from lightning_transfer.data.audio_kaldi import kaldi_rows
from lightning_transfer.errors import DataError


def _write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_scp", ".scp")).write_text(content, encoding="utf-8")
    return folder


def test_utterances_are_the_lines_of_wav_scp(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        wav_scp="u1 a b.wav\nu2\tb.flac\n\n",
        text="u2 H\u00e9llo  there \nu1 \n",
        utt2spk="u1 s1\nu2 s2\n",
    )
    rows = list(kaldi_rows(folder))
    assert [dict(row.values) for row in rows] == [
        {"id": "u1", "path": "a b.wav", "text": "", "speaker": "s1"},
        {"id": "u2", "path": "b.flac", "text": "H\u00e9llo  there", "speaker": "s2"},
    ]
    assert [row.place for row in rows] == [0, 1]
    assert not any(row.problem for row in rows)


def test_segments_cut_recordings(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        wav_scp="r1 a.wav\n",
        segments="u1 r1 0.00 1.25\nu2 r1 1.25 -1\nu3 r9 0 1\nu4 r1 0\nu5 r1 a b\n",
        text="u1 one\nu9 nine\n",
    )
    rows = list(kaldi_rows(folder))
    assert dict(rows[0].values) == {"id": "u1", "text": "one", "path": "a.wav", "offset": "0.00", "duration": "1.25"}
    assert "duration" not in rows[1].values  # to the end
    assert [row.problem for row in rows[2:]] == [
        "the recording `r9` is not in `wav.scp`",
        "the line of `u4` in `segments` is not `utterance recording start end`",
        "`segments` has no times for `u5`: `a b`",
        "`u9` is in `text` and has no recording",
    ]


def test_commands_are_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = _write(tmp_path, wav_scp=f"u1 touch {mark} |\nu2 | touch {mark}\nu3 a.wav\n")
    rows = list(kaldi_rows(folder))
    assert [bool(row.problem) for row in rows] == [True, True, False]
    assert "commands are never run" in rows[0].problem
    assert not mark.exists()


def test_what_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no `wav.scp`. Files there: none"):
        list(kaldi_rows(tmp_path))
    (tmp_path / "wav.scp").write_bytes(b"u1 \xff.wav\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 3\)"):
        list(kaldi_rows(tmp_path))


def test_a_repeated_utterance_stays_a_row(tmp_path: Path) -> None:
    folder = _write(tmp_path, wav_scp="u1 a.wav\nu1 b.wav\n")
    assert [row.values["id"] for row in kaldi_rows(folder)] == ["u1", "u1"]
