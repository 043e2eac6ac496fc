"""Records of sound as batches: targets, pieces, seconds, augmentation, and a fit that goes on bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_transfer.data import AudioAugmentation, AudioDataModule, CTCVocabulary, audit_data, read_audio
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import BackboneCard, Batch, Record, Schema
from tests.data.speech.make import noise, utterances, write, write_set

transformers = pytest.importorskip("transformers")

EXTRACTOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000, "do_normalize": True}
CONFIG = {"conv_kernel": (400,), "conv_stride": (320,)}
CARD = BackboneCard("t", "t", modality="audio", architecture_config=CONFIG, processor={"feature_extractor": EXTRACTOR})
LETTERS = CTCVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"])
WITH_LETTERS = replace(CARD, processor={**CARD.processor, "vocabulary": LETTERS.to_dict()})


class Sounds(AudioDataModule):
    """Records made in memory, of files that are there."""

    def __init__(self, records: Sequence[Record], card: BackboneCard = CARD, **kwargs: Any) -> None:
        super().__init__(**{"val_fraction": 0.2, **kwargs})
        self.source = list(records)
        self.use_card(card)

    def read_records(self) -> list[Record]:
        return self.source


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("sounds")
    rows = write_set(folder, utterances(48, 8))
    return [
        Record(
            row["id"],
            AudioSegment(str(folder / row["path"])),
            row["text"],
            group=row["speaker"],
            meta={"duration": row["duration"], "accent": row["accent"]},
        )
        for row in rows
    ]


@pytest.fixture
def long(tmp_path: Path) -> Record:
    path = write(tmp_path / "long.wav", noise(5.0))
    return Record("long", AudioSegment(str(path), 0.5), "so long", group="s9", meta={"duration": 4.5})


def _split(records: Sequence[Record], **options: Any) -> Sounds:
    data = Sounds(records, **options)
    data.setup("fit")
    return data


def test_speakers_stay_on_one_side_and_targets_are_texts(records: list[Record]) -> None:
    data = _split(records)
    assert data.schema.task == "transcription"
    sides = [{record.group for record in data.records_for(split)} for split in ("train", "val", "test")]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    vocabulary = CTCVocabulary.from_schema(data.schema)
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        rows = data.records_for(split)
        for batch in loader:
            assert set(batch.input) == {"input_values", "attention_mask"}
            assert batch.target.dtype == torch.int64
            for place, index in enumerate(batch.index.tolist()):
                ids = [number for number in batch.target[place].tolist() if number >= 0]
                text = "".join(vocabulary.tokens[number] for number in ids).replace("|", " ")
                expected = rows[index].label
                assert text == "".join(letter for letter in expected if letter in vocabulary.tokens or letter == " ")
                assert text == expected or split != "train"
                wave = read_audio(rows[index].input, 16_000)
                assert int(batch.input["attention_mask"][place].sum()) == len(wave)


def test_a_new_alphabet_is_that_of_the_training_split_alone(records: list[Record]) -> None:
    odd = [replace(row, label=f"{row.label} xyz") if row.group == "s0" else row for row in records]
    odd = [replace(row, split="test" if row.group == "s0" else "val" if row.group == "s1" else "train") for row in odd]
    data = _split(odd)
    train = {letter for row in data.records_for("train") for letter in row.label}
    assert set(data.schema.classes) == {"<pad>", "|", *train} - {" "}
    assert not {"x", "z"} & set(data.schema.classes)
    outside = next(item for item in audit_data(data) if item.code == "outside-vocabulary")
    assert outside.count == 2 * len(data.records_for("test"))
    assert {example[0] for example in outside.examples} == {"x", "z"}
    assert data.schema.preprocessing["vocabulary"]["tokens"] == list(data.schema.classes)
    # Lightning sets up once a stage; the alphabet stays.
    data.setup("test")
    assert set(data.schema.classes) == {"<pad>", "|", *train} - {" "}


def test_the_vocabulary_of_the_card_is_kept_unless_a_new_one_is_wanted(records: list[Record]) -> None:
    assert _split(records, card=WITH_LETTERS).schema.classes == LETTERS.tokens
    assert "q" not in _split(records, card=WITH_LETTERS, vocabulary="new").schema.classes
    with pytest.raises(DataError, match=r"card of `t` has no vocabulary.*`data.vocabulary: new`"):
        _split(records, vocabulary="card")


def test_a_checkpoint_brings_its_vocabulary(records: list[Record]) -> None:
    schema = _split(records, card=WITH_LETTERS, vocabulary="new").schema
    again = Schema.from_dict(schema.to_dict())
    data = Sounds(records[:6], card=WITH_LETTERS)
    data.use_schema(again)
    data.setup("predict")
    assert data.spec.vocabulary.tokens == schema.classes
    batches = list(data.predict_dataloader())
    assert all(batch.target is None for batch in batches)
    other = Sounds(records[:6], card=WITH_LETTERS, chunk_seconds=10.0)
    other.use_schema(again)
    with pytest.raises(CheckpointError, match=r"`chunk_seconds` is 10.0, the checkpoint has 30.0"):
        other.setup("predict")


def test_whisper_has_a_tokenizer_and_no_classes(records: list[Record]) -> None:
    from tests.unit.data.test_audio_preprocessing import _tokenizer_json

    whisper = transformers.WhisperFeatureExtractor(chunk_length=4).to_dict()
    card = replace(CARD, processor={"feature_extractor": whisper, "tokenizer_json": _tokenizer_json()})
    data = _split(records, card=card, batch_seconds=12.0)
    assert data.schema.classes == ()
    assert data.schema.preprocessing["vocabulary"] is None
    batch = next(iter(data.train_dataloader()))
    assert batch.input["input_features"].shape[1:] == (80, 400)
    assert len(batch.index) <= 3  # each is heard as a window of four seconds
    assert set(batch.target.flatten().tolist()) <= {2, 3, 5, -100}
    with pytest.raises(DataError, match="writes the tokens of its own tokenizer"):
        _split(records, card=card, vocabulary="new")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_long_recordings_are_heard_in_pieces_and_not_learnt_from(
    records: list[Record], long: Record, split: str
) -> None:
    given = [replace(row, split=("train", "val", "test")[int(row.group[1:]) % 3]) for row in records]
    data = _split([*given, replace(long, split=split)], chunk_seconds=2.0, overlap_seconds=0.5, max_seconds=3.0)
    if split == "train":
        assert "too-long-for-training" in {finding.code for finding in data.findings}
        assert all(record.id != "long" for record in data.records)
        return
    place = [record.id for record in data.records_for(split)].index("long")
    rows = [row for batch in data.ordered_dataloader(split) for row in _rows(batch) if row[0][0] == place]
    assert sorted(index for index, *_ in rows) == [[place, 0, 3], [place, 1, 3], [place, 2, 3]]
    wave = torch.from_numpy(read_audio(long.input, 16_000))
    for (_, number, _), values, mask in rows:
        begin = round(number * 1.5 * 16_000)
        piece = wave[begin : begin + 32_000]
        assert int(mask.sum()) == len(piece)
        scaled = (piece - piece.mean()) / (piece.var(unbiased=False) + 1e-7).sqrt()
        assert torch.allclose(values[: len(piece)], scaled, atol=1e-4)
    if split == "val":
        learnt = [index[0] for batch in data.val_dataloader() for index in batch.index.tolist()]
        assert place not in learnt
        assert len(learnt) == len(data.records_for("val")) - 1


def _rows(batch: Batch) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    return list(zip(batch.index.tolist(), batch.input["input_values"], batch.input["attention_mask"], strict=True))


def test_an_hour_is_predicted_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty minutes, to be quick: no more is read at once than a piece."""
    import soundfile

    path = tmp_path / "call.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(120):
            file.write(noise(10.0))
    row = Record("call", AudioSegment(str(path)), None, meta={"duration": 1200.0})
    data = Sounds([row], card=WITH_LETTERS, batch_seconds=60.0, check_data=False)
    data.use_schema(_plain_schema(WITH_LETTERS))
    data.setup("predict")
    most = 0
    read = soundfile.SoundFile.read

    def counted(self, frames: int = -1, *args: Any, **options: Any):
        nonlocal most
        most = max(most, frames)
        return read(self, frames, *args, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    batches = list(data.predict_dataloader())
    assert sum(len(batch.index) for batch in batches) == 46  # (1200 - 4) / 26
    assert max(batch.input["input_values"].numel() for batch in batches) <= 60 * 16_000
    assert 0 < most <= 1 << 18


def _plain_schema(card: BackboneCard) -> Schema:
    data = Sounds([], card=card)
    data.preprocessing = data.make_preprocessing(card)
    return Schema(task="transcription", classes=LETTERS.tokens, preprocessing=data.preprocessing.to_dict())


def test_training_leaves_out_what_nothing_can_be_learnt_from(records: list[Record], tmp_path: Path) -> None:
    given = [replace(row, split=("train", "val", "test")[int(row.group[1:]) % 3]) for row in records]
    first = next(row for row in given if row.split == "train")
    blip = Record("blip", AudioSegment(str(write(tmp_path / "b.wav", noise(0.05)))), "a", "train", "s0")
    blip = replace(blip, meta={"duration": 0.05})
    dots = replace(first, id="dots", label="...")
    crowd = replace(first, id="crowd", label="help me now " * 40)
    data = _split([*given, blip, dots, crowd])
    codes = {finding.code: finding for finding in data.findings}
    assert codes["too-short-for-training"].examples == ("blip (0.05 s)",)
    assert codes["nothing-to-learn"].count == codes["too-long-for-its-frames"].count == 1
    assert codes["too-long-for-its-frames"].examples[0].startswith("crowd")
    assert not {"blip", "dots", "crowd"} & {record.id for record in data.records}
    # Judged by them all the same: only training leaves them out.
    kept = _split([*given, *(replace(row, split="test", group="s2") for row in (blip, dots, crowd))])
    assert {"blip", "dots", "crowd"} <= {record.id for record in kept.records_for("test")}


@pytest.mark.parametrize("seconds", [4.0, 12.0])
def test_batches_are_filled_by_seconds(records: list[Record], seconds: float) -> None:
    data = _split(records, batch_seconds=seconds)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert max(batch.input["input_values"].numel() for batch in batches) <= seconds * 16_000
    slow = _split(records, batch_seconds=seconds, augmentation=AudioAugmentation(speed=[0.8]))
    shapes = [batch.input["input_values"].numel() for batch in slow.train_dataloader()]
    assert max(shapes) <= seconds * 16_000 + 16 * 16  # resampling rounds up
    assert len(shapes) > len(list(data.train_dataloader()))


def test_training_alone_is_changed(records: list[Record]) -> None:
    change = AudioAugmentation(gain=(-20.0, -10.0), telephone_probability=1.0)
    plain = replace(CARD, processor={"feature_extractor": {**EXTRACTOR, "do_normalize": False}})
    data = _split(records, card=plain, augmentation=change)
    for loader, split, same in ((data.train_dataloader(), "train", False), (data.val_dataloader(), "val", True)):
        rows = data.records_for(split)
        for batch in loader:
            for index, values, mask in _rows(batch):
                wave = torch.from_numpy(read_audio(rows[index].input, 16_000))
                assert torch.equal(values[mask.bool()], wave) == same


def test_classes_instead_of_transcripts(records: list[Record], long: Record) -> None:
    given = [replace(row, label=row.meta["accent"]) for row in records]
    data = _split(given, task="multiclass", batch_seconds=10.0)
    assert data.schema.classes == ("north", "south")
    assert data.schema.preprocessing["vocabulary"] is None
    batch = next(iter(data.test_dataloader()))
    assert batch.target.shape == (len(batch.index),)
    assert sum(data.schema.counts["train"].values()) == len(data.records_for("train"))
    assert data.plain_features(data.records)(data.records_for("test")).shape == (len(data.records_for("test")), 81)
    with pytest.raises(DataError, match=r"1 recordings cannot be used: long: it is longer than 3 s"):
        _split([*given, replace(long, label="north")], task="multiclass", max_seconds=3.0)
    skipping = _split([*given, replace(long, label="north")], task="multiclass", max_seconds=3.0, on_bad_file="skip")
    assert [(skip.record.id, skip.position) for skip in skipping.list_skipped()] == [("long", 48)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multilabel", "classes": ["a", "b"]}, "The task `multilabel` is none of recordings"),
        ({"min_seconds": 40.0}, "`min_seconds` below `max_seconds`, got 40 and 30"),
        ({"batch_seconds": 0.0}, "`batch_seconds` 0 must be above 0"),
        ({"task": "multiclass", "sampler": "weighted", "batch_seconds": 9.0}, "does not go with `sampler` weighted"),
        ({"vocabulary": "old"}, "auto, card or new, got `old`"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sounds([], **options)


class Learner(pl.LightningModule):
    """Its weight is a history of all samples and targets, and of their order."""

    def __init__(self) -> None:
        super().__init__()
        self.card = CARD
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        heard = batch.input["input_values"].double().abs().sum() / batch.target.clamp(min=0).sum()
        return (self.weight**2 - self.weight * heard).sum()

    def validation_step(self, batch: Batch, _: int) -> None:
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fit_goes_on_bit_for_bit_with_augmentation(records: list[Record], tmp_path: Path, workers: int) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step in (2, 9):
                trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def fit(module: pl.LightningModule, path: Path | None = None, **options: Any) -> int:
        change = AudioAugmentation([0.9, 1.0, 1.1], (5.0, 20.0), 0.5, None, (-6.0, 6.0), 0.5)
        data = Sounds(records, batch_seconds=8.0, augmentation=change, num_workers=workers)
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=2, **quiet, **options)
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        return trainer.global_step

    whole = Learner()
    assert fit(whole, callbacks=[Save()]) > 12
    for step in (2, 9):
        again = Learner()
        fit(again, tmp_path / f"{step}.ckpt")
        assert torch.equal(again.weight, whole.weight)
