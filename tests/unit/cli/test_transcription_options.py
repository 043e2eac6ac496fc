"""Tests of the section `evaluation` of a config of speech."""

from pathlib import Path

import pytest

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.transcription_options import TranscriptionOptions


def test_what_is_cheap_is_the_default() -> None:
    options = TranscriptionOptions()
    assert options.baselines == ["pretrained"]
    assert options.list_keywords() == []


def test_keywords_come_from_a_list_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("acme plus\n\n  # a comment\n zoom \n", encoding="utf-8")
    assert TranscriptionOptions(keywords=str(path)).list_keywords() == ["acme plus", "zoom"]
    assert TranscriptionOptions(keywords=["acme"]).list_keywords() == ["acme"]
    with pytest.raises(UsageError, match=r"no file `.*none\.txt`"):
        TranscriptionOptions(keywords=str(tmp_path / "none.txt")).list_keywords()
