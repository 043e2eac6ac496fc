import csv
import multiprocessing
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI

from lightning_transfer.data import (
    BaseDataModule,
    ImagePreprocessing,
    Skipped,
    check_images,
    records_from_csv,
    records_from_files,
    records_from_folder,
    write_predictions,
)
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.evaluation import predictions
from lightning_transfer.types import BackboneCard, Batch, Calibration, ModelOutput, Record, Schema

CARD = BackboneCard(
    name="test/card", architecture="test/card", input_size=(3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5)
)


class Images(BaseDataModule):
    """A folder for each class, or a table; as a recipe would write it."""

    def __init__(self, root: str, manifest: str | None = None, image_size: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.manifest = manifest
        self.image_size = image_size
        self.reads = 0

    def read_records(self) -> list[Record]:
        self.reads += 1
        if self.manifest is None:
            return records_from_folder(self.root, group_pattern=r"(lot\d+)_")
        skipped: list[Skipped] = []
        records = records_from_csv(self.manifest, self.root, on_bad_file=self.on_bad_file, skipped=skipped)
        self.skip(skipped)
        return records

    def read_predict_records(self) -> list[Record]:
        return records_from_files(self.root) if self.manifest is None else self.read_records()

    def make_preprocessing(self, card: BackboneCard) -> ImagePreprocessing:
        return ImagePreprocessing.from_card(card, self.image_size)

    def load_input(self, record: Record) -> torch.Tensor:
        return self.preprocessing(record.input)

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        return check_images(records, self.on_bad_file)


class Numbers(BaseDataModule):
    """Records made in memory: the base knows nothing of images."""

    def __init__(self, records: Sequence[Record], **kwargs) -> None:
        super().__init__(**{"check_data": False, **kwargs})
        self.source = list(records)
        self.use_card(CARD)

    def read_records(self) -> list[Record]:
        return self.source

    def make_preprocessing(self, card: BackboneCard) -> "Numbers":
        return self

    def to_dict(self) -> dict[str, str]:
        return {"kind": "number"}

    def load_input(self, record: Record) -> torch.Tensor:
        return torch.tensor([float(record.id)])

    def augment_input(self, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return value + torch.rand(1, generator=generator)


def _numbers(count: int = 100) -> list[Record]:
    return [Record(str(i), i, "rare" if i % 10 == 0 else "frequent", group=f"g{i // 2}") for i in range(count)]


class Linear(pl.LightningModule):
    """The least module that follows the contract between module and data."""

    def __init__(self, card: BackboneCard = CARD) -> None:
        super().__init__()
        self.card = card
        self.schema: Schema | None = None
        self.net: torch.nn.Linear | None = None

    def configure_model(self) -> None:
        if self.net is None:
            self.schema = self.trainer.datamodule.schema
            channels, height, width = self.card.input_size
            self.net = torch.nn.Linear(channels * height * width, self.schema.num_logits)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.net(value.flatten(1))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(batch.input), batch.target)

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("val_loss", self.training_step(batch, _), batch_size=len(batch.index))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_loss", self.training_step(batch, batch_idx), batch_size=len(batch.index))

    def predict_step(self, batch: Batch, _: int) -> ModelOutput:
        return ModelOutput(self(batch.input), batch.input.flatten(1), batch.target, batch.index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def _trainer(**options) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**{"accelerator": "cpu", "max_epochs": 1, **quiet, **options})


@pytest.fixture
def trained(make_folder) -> tuple[Path, Linear]:
    """A root with images, and a model trained on it, as it comes from a checkpoint: it brings its schema."""
    root, module = make_folder(), Linear()
    _trainer().fit(module, datamodule=Images(str(root), classes=["good", "bad"], batch_size=8))
    return root, module


def test_fit_test_and_predict_in_one_process(make_folder, tmp_path: Path) -> None:
    root = make_folder()
    data, module, trainer = Images(str(root), batch_size=8), Linear(), _trainer()
    trainer.fit(module, datamodule=data)
    assert module.schema is data.schema
    assert data.schema.classes == ("bad", "good")
    assert {split: sum(c.values()) for split, c in data.schema.counts.items()} == Counter(r.split for r in data.records)
    assert sum(data.schema.num_groups.values()) == 10
    assert data.schema.preprocessing == ImagePreprocessing.from_card(CARD).to_dict()
    trainer.test(module, datamodule=data, verbose=False)
    assert data.reads == 1
    outputs = trainer.predict(module, datamodule=data)
    assert all(output.target is None for output in outputs)
    records = data.records_for("predict")
    found = predictions(torch.cat([o.logits for o in outputs]), [r.id for r in records], data.schema, Calibration())
    path = write_predictions(tmp_path / "p.csv", records, found, data.schema)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [record.id for record in records_from_files(root)]


def test_batches_hold_the_right_images_and_labels(make_folder) -> None:
    data = Images(str(make_folder()), batch_size=7)
    data.use_card(CARD)
    data.setup("fit")
    seen = []
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        records = data.records_for(split)
        for batch in loader:
            assert isinstance(batch, Batch)
            for value, target, index in zip(*batch, strict=True):
                record = records[index]
                assert data.schema.classes[target] == record.label
                assert torch.equal(value, ImagePreprocessing.from_card(CARD)(record.input))
                seen.append(record.id)
    assert len(seen) == len(set(seen))
    assert data.ordered_dataloader("train").dataset.records == data.records_for("train")


def test_workers_give_the_same_batches(make_folder) -> None:
    batches = []
    for workers in (0, 2):
        data = Images(str(make_folder(root=f"images{workers}")), batch_size=8, num_workers=workers)
        data.use_card(CARD)
        data.setup("fit")
        batches.append([batch.input for batch in data.train_dataloader()])
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_workers_get_neither_trainer_nor_records(make_folder) -> None:
    data = Images(str(make_folder()), batch_size=8)
    data.trainer = _trainer()
    data.trainer.strategy.connect(Linear())
    data.setup("fit")
    dataset = pickle.loads(pickle.dumps(data.train_dataloader().dataset))  # noqa: S301
    assert torch.equal(dataset[0][0], data.train_dataloader().dataset[0][0])
    worker = dataset._load.__self__
    assert worker.trainer is None
    assert worker.records == []
    assert data.trainer is not None
    assert data.records


@pytest.mark.slow
def test_spawned_workers(make_folder) -> None:
    data = Images(str(make_folder()), batch_size=8, num_workers=1)
    data.use_card(CARD)
    data.setup("fit")
    loader = data.val_dataloader()
    loader.multiprocessing_context = multiprocessing.get_context("spawn")
    assert torch.cat([batch.index for batch in loader]).tolist() == list(range(len(data.records_for("val"))))


def test_training_batches_depend_on_seed_and_epoch_only() -> None:
    def epochs(seed: int, count: int = 2) -> list[list[float]]:
        data = Numbers(_numbers(), split_seed=0)
        data.split_seed = seed
        data.setup("fit")
        loader = data.train_dataloader()
        result = []
        for _ in range(count):
            torch.rand(1)
            result.append(torch.cat([batch.input for batch in loader]).flatten().tolist())
        return result

    first = epochs(0)
    assert first == epochs(0)
    assert first[0] != first[1]
    assert epochs(5)[0] != first[0]
    # Augmented: no value is whole, and a record changes from epoch to epoch.
    assert all(value % 1 for value in first[0])
    assert sorted(first[0]) != sorted(first[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_state(make_folder, workers: int) -> None:
    data = Images(str(make_folder()), batch_size=8, num_workers=workers)
    data.use_card(CARD)
    data.setup("fit")
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(list(loader)) == len(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_training_loader_resumes() -> None:
    data = Numbers(_numbers())
    data.setup("fit")
    whole = [batch.index.tolist() for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    next(iter(loader))
    state = loader.state_dict()
    again = data.train_dataloader()
    again.load_state_dict(state)
    assert [batch.index.tolist() for batch in again] == whole[1:]


def test_lightning_tells_the_sampler_the_epoch() -> None:
    class Recorder(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[int, list[int]] = {}
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Batch, _: int) -> torch.Tensor:
            self.seen.setdefault(self.current_epoch, []).extend(batch.index.tolist())
            return (self.weight * batch.input).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data, module = Numbers(_numbers()), Recorder()
    _trainer(max_epochs=3, limit_val_batches=0).fit(module, datamodule=data)
    sampler = data.train_dataloader().sampler
    for epoch, seen in module.seen.items():
        sampler.set_epoch(epoch)
        assert seen == [index for index, _ in sampler]
    assert len({tuple(seen) for seen in module.seen.values()}) == 3


def test_a_weighted_sampler_balances_and_says_so() -> None:
    data = Numbers(_numbers(400), sampler="weighted")
    data.setup("fit")
    assert data.schema.sampling == "weighted"
    targets = torch.cat([batch.target for _ in range(5) for batch in data.train_dataloader()])
    assert 0.4 < float((targets == 1).double().mean()) < 0.6


def test_a_module_that_learns_from_the_negative_class_alone_gets_two_classes() -> None:
    records = [replace(record, label="other") if place % 20 == 5 else record for place, record in enumerate(_numbers())]

    class One(Linear):
        learns_from = "negative"

    data, plain = Numbers(records, negative_class="frequent"), Numbers(records, negative_class="frequent")
    plain.setup("fit")
    data.trainer = _trainer()
    data.trainer.strategy._lightning_module = One()
    for _ in range(2):  # Lightning sets up once a stage
        data.setup("fit")
        assert data.schema.classes == ("frequent", "defect")
        assert (data.schema.task, data.schema.negative_class) == ("binary", "frequent")
        assert "original_label" in data.schema.columns
    kinds = Counter(record.meta.get("original_label") for record in data.records)
    assert kinds == {None: 85, "rare": 10, "other": 5}
    assert {record.label for record in data.records} == {"frequent", "defect"}
    # Divided as for a classifier, by the labels as they were.
    assert [record.split for record in data.records] == [record.split for record in plain.records]
    target = torch.cat([batch.target for batch in data.ordered_dataloader("train")])
    assert set(target.tolist()) == {0.0, 1.0}


def test_a_last_batch_of_one_is_left_out_of_training_only() -> None:
    data = Numbers(_numbers(), val_fraction=0, calibration_fraction=0, test_fraction=0, batch_size=33)
    data.setup("fit")
    assert [len(batch.index) for batch in data.train_dataloader()] == [33, 33, 33]
    assert [len(batch.index) for batch in data.ordered_dataloader("train")] == [33, 33, 33, 1]
    data.batch_size = 32
    assert [len(batch.index) for batch in data.train_dataloader()] == [32, 32, 32, 4]


def test_without_validation_lightning_trains_all_the_same() -> None:
    data = Numbers(_numbers(), val_fraction=0, calibration_fraction=0)
    module = Linear(replace(CARD, input_size=(1, 1, 1)))
    _trainer().fit(module, datamodule=data)
    assert data.val_dataloader() == []


def test_calibration_uses_validation_where_it_has_no_split_of_its_own() -> None:
    data = Numbers(_numbers(), calibration_fraction=0)
    data.setup("fit")
    assert data.calibration_dataloader().dataset.records == data.records_for("val")
    data = Numbers(_numbers())
    data.setup("fit")
    assert data.calibration_dataloader().dataset.records == data.records_for("calibration")


@pytest.mark.parametrize(
    ("labels", "options", "dtype"),
    [
        (["a", "b", "c", "a"], {}, torch.int64),
        (["a", "b", "a", "b"], {"task": "binary", "negative_class": "b"}, torch.float32),
        (
            [(1.0, 0.0), (0.0, None), (1.0, 1.0), (None, 0.0)],
            {"task": "multilabel", "classes": ["x", "y"]},
            torch.float32,
        ),
    ],
)
def test_targets_of_each_task(labels, options, dtype: torch.dtype) -> None:
    data = Numbers([Record(str(i), i, labels[i % 4]) for i in range(40)], **options)
    data.setup("fit")
    target = next(iter(data.test_dataloader())).target
    assert target.dtype == dtype
    assert target.shape == ((8, 2) if options.get("task") == "multilabel" else (8,))
    if options.get("task") == "binary":
        assert data.schema.classes == ("b", "a")
        assert data.schema.negative_class == "b"


def test_predicting_from_a_checkpoint_needs_no_labels(trained, make_folder) -> None:
    _, module = trained
    data = Images(str(make_folder(("new",), count=3, root="new")), batch_size=2)
    outputs = _trainer().predict(module, datamodule=data)
    assert data.schema.classes == ("good", "bad")
    assert [record.split for record in data.records_for("predict")] == ["predict"] * 3
    assert sum(len(output.logits) for output in outputs) == 3


def test_prediction_has_no_targets_even_where_labels_are_known(trained, tmp_path: Path) -> None:
    root, module = trained
    (tmp_path / "known.csv").write_text("path,label\ngood/lot0_0.png,good\n")
    data = Images(str(root), manifest=str(tmp_path / "known.csv"))
    (output,) = _trainer().predict(module, datamodule=data)
    assert output.target is None
    assert data.records_for("predict")[0].label == "good"


def test_labels_unknown_to_the_checkpoint_are_no_error_in_prediction(trained, tmp_path: Path) -> None:
    root, module = trained
    table = tmp_path / "new.csv"
    table.write_text("path,label\ngood/lot0_0.png,never seen\nbad/lot0_0.png,\n")
    data = Images(str(root), manifest=str(table))
    _trainer().predict(module, datamodule=data)
    assert [record.label for record in data.records_for("predict")] == ["never seen", None]


def test_the_checkpoints_order_of_classes_holds_in_test(trained) -> None:
    root, module = trained
    data = Images(str(root), batch_size=8)
    _trainer().test(module, datamodule=data, verbose=False)
    assert data.schema.classes == ("good", "bad")
    batch = next(iter(data.test_dataloader()))
    names = [data.schema.classes[target] for target in batch.target]
    assert names == [data.records_for("test")[index].label for index in batch.index]


def test_labels_that_the_checkpoint_lacks_stop_a_test(trained, make_folder) -> None:
    _, module = trained
    data = Images(str(make_folder(("bad", "good", "pit"), root="more")))
    with pytest.raises(CheckpointError, match=r"Data: multiclass, bad, good, pit\. Checkpoint: multiclass, good, bad"):
        _trainer().test(module, datamodule=data)


def test_other_preprocessing_than_the_checkpoints_is_named(trained) -> None:
    root, module = trained
    with pytest.raises(CheckpointError, match=r"`size` is \[16, 16\], the checkpoint has \[8, 8\]"):
        _trainer().predict(module, datamodule=Images(str(root), image_size=16))


def test_other_splits_than_the_checkpoints_are_warned_of(trained) -> None:
    root, module = trained
    with pytest.warns(UserWarning, match="may hold training records"):
        _trainer().test(module, datamodule=Images(str(root), split_seed=1), verbose=False)


def test_data_that_only_tests_a_finished_model(trained, tmp_path: Path) -> None:
    root, module = trained
    table = tmp_path / "new.csv"
    table.write_text("path,label,split\n" + "".join(f"bad/lot{i // 2}_{i}.png,bad,test\n" for i in range(4)))
    data = Images(str(root), manifest=str(table))
    with pytest.warns(UserWarning, match="differ from those"):
        _trainer().test(module, datamodule=data, verbose=False)
    assert len(data.records_for("test")) == 4


def test_prediction_without_a_trained_model(make_folder) -> None:
    with pytest.raises(DataError, match=r"the module has none\. Use a module made by `from_checkpoint`"):
        _trainer().predict(Linear(), datamodule=Images(str(make_folder())))


def test_a_schema_given_by_hand_serves_without_a_trainer(make_folder) -> None:
    data = Images(str(make_folder()))
    data.use_card(CARD)
    data.use_schema(Schema(task="multiclass", classes=("good", "bad")))
    data.setup("predict")
    assert next(iter(data.predict_dataloader())).input.shape == (32, 3, 8, 8)


def test_a_schema_given_by_hand_comes_before_lightning_restores(trained, tmp_path: Path) -> None:
    root, module = trained
    module.trainer.save_checkpoint(tmp_path / "model.ckpt")
    data = Images(str(root))
    data.use_schema(module.schema)
    (output, *_) = _trainer().predict(Linear(), datamodule=data, ckpt_path=tmp_path / "model.ckpt")
    assert torch.equal(output.logits, _trainer().predict(module, datamodule=Images(str(root)))[0].logits)


def test_a_module_without_a_card(make_folder) -> None:
    module = Linear()
    del module.card
    with pytest.raises(MisconfigurationException, match=r"`Images` takes its preprocessing from the module's `card`"):
        _trainer().fit(module, datamodule=Images(str(make_folder())))


def test_batches_before_setup() -> None:
    with pytest.raises(MisconfigurationException, match="`Numbers` has not read its data"):
        Numbers([]).train_dataloader()


def test_bad_files_stop_a_fit_or_are_listed(make_folder) -> None:
    root = make_folder()
    (root / "bad" / "lot0_0.png").write_bytes(b"")
    data = Images(str(root))
    data.use_card(CARD)
    with pytest.raises(DataError, match=r"1 of 40 images cannot be used:\s+bad/lot0_0.png.*empty"):
        data.setup("fit")
    data = Images(str(root), on_bad_file="skip", check_data=False)
    data.use_card(CARD)
    with pytest.warns(UserWarning, match=r"1 of 40 records are left out: bad/lot0_0.png"):
        data.setup("fit")
    assert len(data.records) == 39
    assert [skip.record.id for skip in data.list_skipped()] == ["bad/lot0_0.png"]
    assert data.list_skipped("predict") == []


def test_skipped_rows_keep_their_places_among_all_rows(make_folder, tmp_path: Path) -> None:
    root = make_folder()
    table = tmp_path / "t.csv"
    names = ["bad/lot0_0.png", "", "missing.png", "good/lot0_0.png", "x,y", "gone.png"]
    table.write_text("path,label\n" + "".join(f"{name},bad\n" for name in names))
    data = Images(str(root), manifest=str(table), on_bad_file="skip")
    data.use_card(CARD)
    data.use_schema(Schema(task="multiclass", classes=("bad", "good")))
    with pytest.warns(UserWarning, match="4 of 6 records are left out"):
        data.setup("predict")
    places = {skip.record.id: skip.position for skip in data.list_skipped("predict")}
    assert places == {"row 3": 1, "missing.png": 2, "row 6": 4, "gone.png": 5}
    found = predictions(torch.zeros(2, 2), [r.id for r in data.predict_records], data.schema, Calibration())
    path = write_predictions(
        tmp_path / "p.csv", data.predict_records, found, data.schema, skipped=data.list_skipped("predict")
    )
    with path.open(newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream)]
    assert ids == ["bad/lot0_0.png", "row 3", "missing.png", "good/lot0_0.png", "row 6", "gone.png"]


def test_repeated_ids() -> None:
    with pytest.raises(DataError, match="1 ids appear more than once: 3"):
        Numbers([*_numbers(), Record("3", 3, "rare")]).setup("fit")


def test_bad_splits_stop_setup() -> None:
    records = [replace(r, split="test" if i % 2 else "train", group="g") for i, r in enumerate(_numbers())]
    with pytest.raises(DataError, match=r"`g` \(train and"):
        Numbers(records).setup("fit")
    with pytest.raises(DataError, match="one class only: `rare`"):
        Numbers([replace(r, label="rare") for r in _numbers()]).setup("fit")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="got 5 and 5"):
        Numbers([], num_folds=5, fold=5)


def test_given_splits_can_be_ignored() -> None:
    records = [replace(r, split="test" if r.label == "rare" else "train") for r in _numbers()]
    with pytest.raises(DataError, match=r"`given_splits: ignore`"):
        Numbers(records).setup("fit")
    data, fresh = Numbers(records, given_splits="ignore"), Numbers(_numbers())
    data.setup("fit")
    fresh.setup("fit")
    assert data.records == fresh.records


def test_a_class_of_one_group() -> None:
    with pytest.raises(DataError, match=r"class `rare` has one group only \(`lot`\)"):
        Numbers([replace(r, group="lot") if r.label == "rare" else r for r in _numbers()]).setup("fit")


def test_the_command_line_makes_it(make_folder) -> None:
    options = ["--data.num_folds=5", "--data.sampler=weighted", "--data.classes=[good,bad]", "--data.on_bad_file=skip"]
    cli = LightningCLI(
        Linear, Images, run=False, args=[f"--data.root={make_folder()}", *options], save_config_callback=None
    )
    assert cli.datamodule.division.num_folds == 5
    assert cli.datamodule.classes == ("good", "bad")
    assert cli.datamodule.sampler == "weighted"
    assert cli.datamodule.division.val_fraction == 0.15
