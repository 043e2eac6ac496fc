"""From every layout to batches; general speech, keywords and the sample beside them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.cli import LightningCLI

from lightning_transfer.data import CTCVocabulary, audit_data
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard, Schema
from recipes.speech.cli import RECIPE
from recipes.speech.data import SpeechDataModule
from tests.data.speech.make import noise, utterances, write, write_nemo, write_ours, write_rows, write_set
from tests.unit.data.test_audio_layouts import WRITERS
from tests.unit.data.test_datamodule import Linear

Make = Callable[..., SpeechDataModule]


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_becomes_batches_and_is_said_aloud(
    tmp_path: Path, module: Make, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = WRITERS[name](tmp_path, utterances(18, 6))
    data = module(place, root=str(tmp_path) if name == "kaldi" else None, val_fraction=0.2)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        data.setup("fit")
    said = {"csv": "a table", "nemo": "a NeMo manifest", "commonvoice": "Common Voice"}
    assert said.get(name, f"a {name.replace('speechb', 'SpeechB').replace('kaldi', 'Kaldi')}") in caplog.text
    assert "18 utterances of 18 rows" in caplog.text
    vocabulary = CTCVocabulary.from_schema(data.schema)
    rows = data.records_for("train")
    for batch in data.train_dataloader():
        for target, index in zip(batch.target, batch.index.tolist(), strict=True):
            text = "".join(vocabulary.tokens[number] for number in target.tolist() if number >= 0).replace("|", " ")
            assert text == rows[index].label.lower().strip('".')
    splits = {split: {row.group for row in data.records_for(split)} for split in ("train", "val", "test")}
    assert all(splits.values())
    assert sum(map(len, splits.values())) == 6  # no voice on two sides


def test_second_lists_are_validation_and_test(tmp_path: Path, module: Make) -> None:
    files = [write_ours(tmp_path / name, utterances(6, 2, seed)) for seed, name in enumerate(("a", "b", "c"))]
    speakers = [
        write_rows(file, [{**row, "speaker": f"{file.parent.name}{row['speaker']}"} for row in _rows(file)])
        for file in files
    ]
    data = module(speakers[0], val_file=str(speakers[1]), test_file=str(speakers[2]))
    data.setup("fit")
    assert [record.id for record in data.records_for("val")] == [f"val u{number:03}" for number in range(6)]
    assert {record.input.path for record in data.records_for("test")} == {
        str((tmp_path / "c" / "wavs" / f"u{number:03}.wav").resolve()) for number in range(6)
    }
    assert data.claimed.keys() == {record.id for record in data.records}
    given = write_rows(tmp_path / "a" / "given.csv", [{**row, "split": "val"} for row in _rows(speakers[0])])
    with pytest.raises(DataError, match=r"names a split `val`, and there is `data.val_file`"):
        module(given, val_file=str(speakers[1])).setup("fit")


def _rows(file: Path) -> list[dict[str, str]]:
    import csv

    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_general_speech_is_rehearsed_in_training_alone(tmp_path: Path, module: Make) -> None:
    own = write_ours(tmp_path / "own", utterances(18, 6))
    rows = write_set(tmp_path / "general", utterances(30, 5, seed=3))
    table = write_rows(
        tmp_path / "general" / "general.csv",
        [
            {**row, "speaker": f"g{row['speaker']}", "split": ("train", "val")[place < 6]}
            for place, row in enumerate(rows)
        ],
    )
    alone = module(own)
    alone.setup("fit")
    both = module(own, general_file=str(table), rehearsal_file=str(table), rehearsal_share=0.4)
    both.setup("fit")
    for split in ("val", "test"):
        assert [record.input for record in both.records_for(split)] == [r.input for r in alone.records_for(split)]
    ours = {record.input.path for record in alone.records_for("train")}
    old = [record for record in both.records_for("train") if record.input.path not in ours]
    assert len(both.records_for("train")) == len(ours) + len(old)
    assert len(old) == round(0.4 / 0.6 * len(ours))
    judged = {record.input.path for record in both.general_records if record.split == "val"}
    assert judged
    assert not judged & {record.input.path for record in old}
    seen = torch.cat([batch.index for batch in both.train_dataloader()])
    assert sorted(seen.tolist()) == list(range(len(ours) + len(old)))
    assert any(finding.code == "rehearsal" for finding in both.findings)
    write_rows(table, [{**row, "split": ""} for row in _rows(table)])
    with pytest.raises(DataError, match=r"has no splits: what is lost would be judged by what is learnt"):
        module(own, general_file=str(table), rehearsal_file=str(table)).setup("fit")
    with pytest.raises(ValueError, match=r"`rehearsal_file` has transcripts, and the task `binary` learns none"):
        SpeechDataModule(str(own), rehearsal_file=str(table), task="binary", label_column="text")


def test_general_speech_has_a_loader_with_its_transcripts(tmp_path: Path, module: Make) -> None:
    own = write_ours(tmp_path / "own", utterances(12, 6))
    general = write_set(tmp_path / "general", utterances(8, 4, seed=3))
    table = write_rows(
        tmp_path / "general" / "general.csv",
        [{**row, "split": ("val", "test")[place % 2]} for place, row in enumerate(general)],
    )
    write(tmp_path / "general" / "long.wav", noise(3.0))
    rows = [*_rows(table), {**_rows(table)[0], "id": "long", "path": "long.wav", "duration": 3.0}]
    write_rows(table, rows)
    data = module(own, general_file=str(table), batch_seconds=6.0, chunk_seconds=2.5, max_seconds=2.5)
    with pytest.warns(UserWarning, match=r"Of general speech 1 recordings are longer than 2.5 s"):
        data.setup("fit")
    loader = data.general_dataloader()
    batches = list(loader)
    records = [record for record in data.general_records if record.split == "val"]
    assert len(records) == 4
    assert sorted(i for batch in batches for i in batch.index.tolist()) == [0, 1, 2, 3]
    vocabulary = CTCVocabulary.from_schema(data.schema)
    for batch in batches:
        assert batch.input["input_values"].numel() <= 6 * 16_000
        for target, index in zip(batch.target, batch.index.tolist(), strict=True):
            assert target[target >= 0].tolist() == vocabulary.encode(records[index].label)
    assert sum(len(batch.index) for batch in data.general_dataloader("test")) == 4
    assert not {record.id for record in data.general_records} & {record.id for record in data.records_for("predict")}
    assert module(own).general_dataloader() is None


def test_keywords_are_counted_in_each_split(tmp_path: Path, module: Make) -> None:
    file = write_ours(tmp_path, utterances(24, 6))
    words = tmp_path / "keywords.txt"
    words.write_text("# products\nAgent\nlost card\n\nzebra\n")
    data = module(file, keywords=str(words))
    data.setup("fit")
    assert data.keywords == ["Agent", "lost card", "zebra"]
    finding = next(item for item in audit_data(data) if item.code == "keywords")
    assert finding.severity == "warning"
    assert "zebra" in finding.examples
    said = sum(f" {row.label} ".count(" agent ") for row in data.records)
    assert (
        f"3 keywords are said {said + sum('lost card' in row.label for row in data.records)} times" in finding.message
    )
    assert module(file, keywords=["a", "b c"]).keywords == ["a", "b c"]
    missing = module(file, keywords=str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"Cannot read the keywords of `.*none.txt`: No such file"):
        _ = missing.keywords


def test_the_sample_is_written_where_the_config_says(
    tmp_path: Path, module: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.speech.sample import make

    asked: list[tuple[Path, int]] = []

    def write_sample(folder: Path, *, seed: int = 0) -> None:
        asked.append((Path(folder), seed))
        for name in ("calls", "general"):
            found = write_set(Path(folder), [{**row, "id": f"{name}{row['id']}"} for row in utterances(12, 6)])
            write_rows(Path(folder) / f"{name}.csv", found)
        (Path(folder) / "keywords.txt").write_text("agent\n")

    monkeypatch.setattr(make, "write_sample", write_sample)
    data = module(tmp_path / "sample", sample=True, sample_seed=7)
    data.prepare_data()
    data.setup("fit")
    assert asked == [(tmp_path / "sample", 7)]
    assert len(data.records) == len(data.general_records) == 12
    assert data.keywords == ["agent"]


@pytest.mark.slow
def test_the_real_sample_can_be_read(tmp_path: Path, module: Make) -> None:
    pytest.importorskip("espeakng_loader")
    data = module(tmp_path / "sample", sample=True)
    data.prepare_data()
    data.setup("fit")
    assert {record.split for record in data.records} == {"train", "val", "test"}
    errors = [finding for finding in audit_data(data) if finding.severity == "error"]
    assert errors == []
    assert data.general_dataloader() is not None


def _schema(card: BackboneCard, folder: Path, **options) -> Schema:
    data = SpeechDataModule(str(write_ours(folder / "known", utterances(12, 6))), **options)
    data.use_card(card)
    data.setup("fit")
    return data.schema


def test_prediction_reads_every_row_and_needs_no_transcripts(tmp_path: Path, module: Make, card: BackboneCard) -> None:
    folder = tmp_path / "new"
    found = write_set(folder, utterances(6, 2))
    (folder / "wavs" / "u002.wav").write_bytes(b"nothing")
    rows = [{"path": row["path"], "id": row["id"], "note": "x"} for row in found]
    rows[4]["path"] = "../../elsewhere.wav"
    data = module(write_rows(folder / "new.csv", rows), batch_seconds=5.0)
    data.use_schema(_schema(card, tmp_path))
    data.setup("predict")
    assert [record.id for record in data.records_for("predict")] == ["u000", "u001", "u003", "u005"]
    skipped = data.list_skipped("predict")
    assert [(skip.record.id, skip.position) for skip in sorted(skipped, key=lambda item: item.position)] == [
        ("u002", 2),
        ("u004", 4),
    ]
    batches = list(data.predict_dataloader())
    assert all(batch.target is None for batch in batches)
    assert sorted(i for batch in batches for i in batch.index.tolist()) == [0, 1, 2, 3]


def test_prediction_finds_what_only_decoding_tells(tmp_path: Path, module: Make, card: BackboneCard) -> None:
    found = write_set(tmp_path / "new", utterances(3, 2))
    wave = noise(0.5)
    wave[9] = float("nan")
    write(tmp_path / "new" / found[0]["path"], wave, subtype="FLOAT")
    data = module(write_rows(tmp_path / "new" / "new.csv", found))
    data.use_schema(_schema(card, tmp_path))
    with pytest.warns(UserWarning, match="1 of 3 records are left out"):
        data.setup("predict")
    (skip,) = data.list_skipped("predict")
    assert skip.position == 0
    assert "NaN or infinite" in skip.reason


def test_prediction_of_a_folder_needs_no_list(tmp_path: Path, module: Make, card: BackboneCard) -> None:
    for name in ("b.mp3", "deep/a.flac", "c.wav"):
        write(tmp_path / "sounds" / name, noise(0.4))
    data = module(tmp_path / "sounds")
    data.use_schema(_schema(card, tmp_path))
    data.setup("predict")
    assert [record.id for record in data.records_for("predict")] == ["b.mp3", "c.wav", "deep/a.flac"]
    with pytest.raises(DataError, match="lists no utterances"):
        module(tmp_path / "sounds").setup("fit")


def test_classes_from_a_column(tmp_path: Path, module: Make, bare_card: BackboneCard) -> None:
    file = write_ours(tmp_path, utterances(24, 6))
    data = module(file, task="multiclass", label_column="accent", val_fraction=0.4)
    data.use_card(bare_card)
    data.setup("fit")
    assert data.schema.classes == ("north", "south")
    assert "text" not in data.schema.columns
    assert next(iter(data.val_dataloader())).target.dtype == torch.int64
    codes = {finding.code for finding in audit_data(data)}
    assert {"class-counts", "audio-lengths"} <= codes
    assert not codes & {"transcript-lengths", "keywords"}
    with pytest.raises(ValueError, match="`multiclass` needs `label_column`"):
        module(file, task="multiclass")


def test_the_command_line_names_all_options(tmp_path: Path) -> None:
    file = write_nemo(tmp_path, utterances(12, 6))
    options = [
        f"--data.file={file}",
        "--data.batch_seconds=30",
        "--data.augmentation.speed=[0.9, 1.0, 1.1]",
        "--data.augmentation.noise_snr=[5, 20]",
        "--data.augmentation.telephone_probability=0.5",
        "--data.channel=1",
        "--data.keywords=[acme, order number]",
        "--data.normaliser=basic",
        "--data.speaker_column=speaker",
        "--data.val_fraction=0.2",
        "--data.on_bad_file=skip",
    ]
    cli = LightningCLI(Linear, SpeechDataModule, run=False, args=options, save_config_callback=None)
    data = cli.datamodule
    assert data.batch_budget == pytest.approx(27.0)
    assert tuple(data.augmentation.speed) == (0.9, 1.0, 1.1)
    assert data.keywords == ["acme", "order number"]
    assert data.task == "transcription"
    assert data.division.val_fraction == 0.2


def test_the_recipe_is_one_of_transcription() -> None:
    assert RECIPE.kind == "transcription"
    assert RECIPE.data_class() is SpeechDataModule
    assert RECIPE.command == "python -m recipes.speech"
