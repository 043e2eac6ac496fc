"""Each layout is recognised by what is in it, and its columns by their usual names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_transfer.data.audio_layouts import find_source
from lightning_transfer.errors import DataError
from tests.data.speech.make import (
    noise,
    utterances,
    write,
    write_commonvoice,
    write_kaldi,
    write_nemo,
    write_ours,
    write_rows,
    write_speechbrain,
)

WRITERS: dict[str, Callable[..., Path]] = {
    "csv": write_ours,
    "nemo": write_nemo,
    "speechbrain": write_speechbrain,
    "kaldi": write_kaldi,
    "commonvoice": write_commonvoice,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    rows = utterances(4)
    return {name: writer(tmp_path_factory.mktemp(name), rows) for name, writer in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_recognised(written: dict[str, Path], name: str) -> None:
    source = find_source(written[name])
    assert source.layout == name
    rows, columns = source.rows()
    assert len(rows) == 4
    assert [row.place for row in rows] == [0, 1, 2, 3]
    assert source.column_of("path", columns) is not None
    assert source.column_of("text", columns) is not None
    assert source.column_of("speaker", columns) is not None
    assert find_source(written[name], name) == source
    root = {"commonvoice": written[name] / "clips", "kaldi": written[name]}.get(name, written[name].parent)
    assert source.root == root


def test_common_voice_as_a_folder_has_splits_and_as_a_table_none(written: dict[str, Path]) -> None:
    rows, columns = find_source(written["commonvoice"]).rows()
    assert {row.values["split"] for row in rows} == {"train", "val", "test"}
    assert "split" in columns
    table = find_source(written["commonvoice"] / "train.tsv")
    assert table.layout == "commonvoice"
    assert table.root == written["commonvoice"] / "clips"
    assert "split" not in table.rows()[1]


def test_a_lone_quote_is_a_letter(written: dict[str, Path]) -> None:
    rows, _ = find_source(written["commonvoice"]).rows()
    assert all(row.values["sentence"].startswith('"') and not row.problem for row in rows)


def test_a_folder_with_a_manifest_and_one_without(tmp_path: Path, written: dict[str, Path]) -> None:
    assert find_source(written["csv"].parent).path == written["csv"]
    assert find_source(written["kaldi"] / "wav.scp").path == written["kaldi"]
    for name in ("b.wav", "sub/a.FLAC", ".hidden.wav", "notes.txt"):
        place = tmp_path / name
        if name.endswith("txt"):
            place.write_text("nothing")
        else:
            write(place, noise(0.1), format="FLAC" if "FLAC" in name else None)
    with pytest.raises(DataError, match=r"lists no utterances. Looked for: .*It holds: .*notes.txt"):
        find_source(tmp_path)
    rows, columns = find_source(tmp_path, lone=True).rows()
    assert [row.values["path"] for row in rows] == ["b.wav", "sub/a.FLAC"]
    assert columns == ["path"]


def test_what_cannot_be_found(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "manifest.csv", [{"path": "a.wav", "text": "a"}])
    with pytest.raises(DataError, match=r"There is no `.*manifst.csv`. Did you mean `manifest.csv`"):
        find_source(tmp_path / "manifst.csv")
    with pytest.raises(DataError, match=r"Unknown `format` `nemmo`. Did you mean `nemo`"):
        find_source(table, "nemmo")
    with pytest.raises(DataError, match="is a file, and the format `kaldi` is a folder"):
        find_source(table, "kaldi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file that ends in"):
        find_source(tmp_path / "empty", lone=True).rows()
    with pytest.raises(DataError, match=r"has no `wav.scp`"):
        find_source(tmp_path / "empty", "kaldi").rows()
