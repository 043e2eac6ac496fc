"""A router gets new queues from the command line, with old tickets rehearsed and watched."""

import csv
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_transfer.cli import main
from lightning_transfer.modules import TransferModule
from recipes.nlp.cli import RECIPE
from recipes.nlp.data import TextDataModule
from tests.recipes.verbs import run_folder
from tests.unit.modules.text_toys import make_encoder

Run = Callable[..., tuple[int, str]]

QUEUES = {
    "billing": "invoice charge refund amount paid",
    "delivery": "parcel courier late tracking address",
    "login": "password account locked reset code",
    "returns": "broken exchange label box sender",
    "careers": "job apply interview salary hiring",
}
FILLERS = "please help me with this today thank you hello again".split()
OLD, NEW = ("billing", "delivery", "login"), ("returns", "careers")
SMALL = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.head_norm=batchnorm",
         "--evaluation.latency_batch_sizes=[]", "--evaluation.baselines=[majority]"]  # fmt: skip


def _write(path: Path, queues: tuple[str, ...], count: int, seed: int) -> Path:
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "body", "queue", "customer"))
        for number in range(count):
            for queue in queues:
                words = draw.sample(QUEUES[queue].split(), 3) + draw.sample(FILLERS, 5) + [f"nr {number} {seed}"]
                writer.writerow((f"{queue}{number}", " ".join(words), queue, f"{seed} {queue} {number // 2}"))
    return path


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder that knows all words of the tickets."""
    words = [word for text in QUEUES.values() for word in text.split()]
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny", [*words, *FILLERS, "nr"], hidden=32)


@pytest.fixture(scope="session")
def old(small_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table of three queues, and the run that was trained on it."""
    place = tmp_path_factory.mktemp("old")
    table = _write(place / "old.csv", OLD, count=24, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = [f"--model.backbone={small_encoder}", f"--data.file={table}", "--data.label_column=queue",
                 "--data.group_column=customer", "--data.batch_size=8", "--trainer.max_epochs=3"]  # fmt: skip
        assert main(RECIPE, ["fit", *words, *SMALL]) == 0
    (found,) = (place / "runs" / "nlp").iterdir()
    return table, found


def test_a_new_queue_from_end_to_end(old: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    table, before = old
    new = _write(tmp_path / "new.csv", NEW, count=20, seed=2)
    probe = {"class_path": "recipes.nlp.data.TextDataModule",
             "init_args": {"file": str(table), "label_column": "queue", "group_column": "customer"}}  # fmt: skip
    config = tmp_path / "add.yaml"
    arguments: dict[str, Any] = {"probe": probe, "head": "head", "metrics": ["accuracy", "agreement"]}
    callback = {"class_path": "lightning_transfer.ForgettingMonitor", "init_args": {**arguments, "max_overhead": None}}
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback], "max_epochs": 2}}))
    words = [f"--model.expand_from={before}", f"--data.file={new}", f"--data.rehearsal_file={table}",
             "--data.rehearsal_share=0.5", *SMALL]  # fmt: skip
    code, printed = run("fit", "--config", str(config), *words)
    assert code == 0, printed
    assert "are not those that the run to expand was trained with" not in printed
    found = run_folder(printed)

    module = TransferModule.from_checkpoint(found / "model.ckpt")
    assert module.schema is not None
    assert module.schema.classes == ("billing", "delivery", "login", "careers", "returns")
    assert module.head.sizes == (3, 2)
    counts = module.schema.counts
    assert sum(counts["train"][name] for name in OLD) == sum(counts["train"][name] for name in NEW)
    own = TransferModule.from_checkpoint(before / "model.ckpt").schema
    assert own is not None
    for split in ("val", "calibration", "test"):
        assert {name: counts[split][name] for name in OLD} == own.counts[split]
    with (found / "logs" / "csv" / "metrics.csv").open() as file:
        readings = [row for row in csv.DictReader(file) if row.get("forgetting_accuracy")]
    assert float(readings[0]["forgetting_accuracy"]) == float(readings[0]["forgetting_agreement"]) == 0.0
    assert len(readings) == 3
    facts = json.loads((found / "metrics.json").read_text())
    assert facts["source_accuracy_before"]["n"] == sum(own.counts["val"].values())

    kept = shutil.move(before, tmp_path / "gone")
    try:
        code, printed = run("test", str(found), *SMALL[3:])
    finally:
        shutil.move(kept, before)
    assert code == 0, printed
    assert "The records or their splits differ" not in printed
    page = (found / "report.html").read_text()
    assert "source accuracy" in page.lower()
    code, printed = run("predict", str(found), f"--data.file={table}", "--data.rehearsal_file=null")
    assert code == 0, printed
    lines = (found / "predict" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in csv.DictReader(table.open())]


def test_no_old_ticket_changes_its_split(old: tuple[Path, Path], tmp_path: Path) -> None:
    table, before = old
    new = _write(tmp_path / "new.csv", NEW, count=20, seed=2)
    card = TransferModule.from_checkpoint(before / "model.ckpt").card
    options: dict[str, Any] = {"label_column": "queue", "group_column": "customer"}
    alone = TextDataModule(str(table), **options)
    alone.use_card(card)
    alone.setup("fit")
    splits = {record.id: record.split for record in alone.records}
    assert alone.schema is not None
    trained = TransferModule.from_checkpoint(before / "model.ckpt").schema
    assert trained is not None
    assert alone.schema.fingerprint == trained.fingerprint
    both = TextDataModule(str(new), rehearsal_file=str(table), rehearsal_share=0.6, **options)
    both.use_card(card)
    both.setup("fit")
    rehearsed = [record for record in both.records if record.label in OLD]
    assert all(record.split == splits[record.id] for record in rehearsed)
    drawn = Counter(record.label for record in rehearsed if record.split == "train")
    num_new = sum(record.label in NEW for record in both.records_for("train"))
    assert sum(drawn.values()) == min(round(1.5 * num_new), sum(split == "train" for split in splits.values()))
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert any(finding.code == "rehearsal" for finding in both.findings)
    # Every epoch sees the same old tickets.
    again = TextDataModule(str(new), rehearsal_file=str(table), rehearsal_share=0.6, **options)
    again.use_card(card)
    again.setup("fit")
    assert again.records == both.records


def test_another_division_of_the_old_tickets_is_said(old: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    table, before = old
    new = _write(tmp_path / "new.csv", NEW, count=20, seed=2)
    words = [f"--model.expand_from={before}", f"--data.file={new}", f"--data.rehearsal_file={table}", *SMALL]
    with pytest.warns(UserWarning, match="its test tickets may be among those that are learnt from now"):
        run("fit", *words, "--data.split_seed=5", "--trainer.max_epochs=1")


def test_tickets_out_of_scope_may_come_with_the_old_ones(old: tuple[Path, Path], tmp_path: Path) -> None:
    table, before = old
    mixed = tmp_path / "mixed.csv"
    mixed.write_text(table.read_text() + "".join(f"o{n},weather {n} song,nowhere,c{n}\n" for n in range(12)))
    new = _write(tmp_path / "new.csv", NEW, count=20, seed=2)
    options: dict[str, Any] = {"label_column": "queue", "group_column": "customer", "out_of_scope": "nowhere"}
    data = TextDataModule(str(new), rehearsal_file=str(mixed), **options)
    data.use_card(TransferModule.from_checkpoint(before / "model.ckpt").card)
    data.setup("fit")
    assert sorted({record.label for record in data.records}) == sorted((*OLD, *NEW))
    assert len(data.outside) == 12
    lacking = TextDataModule(str(new), rehearsal_file=str(table), **options)
    lacking.use_card(TransferModule.from_checkpoint(before / "model.ckpt").card)
    with pytest.raises(Exception, match="No ticket has the label `nowhere`"):
        lacking.setup("fit")
