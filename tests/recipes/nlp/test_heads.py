"""The heads of the nlp recipe, and adapters, through all verbs on a tiny encoder: fit, test, predict, plan."""

import csv
import json
from pathlib import Path

import pytest

from lightning_transfer.cli import main
from lightning_transfer.modules import FewShotModule, TransferModule, ZeroShotModule
from recipes.nlp.cli import RECIPE
from tests.unit.modules.text_toys import QUEUES, make_encoder, make_tickets

CASES = {
    "few_shot": (["--model.head=few_shot", "--model.descriptions=names", "--data.batch_size=12"], FewShotModule),
    "zero_shot": (["--model.head=zero_shot", "--model.scale=10"], ZeroShotModule),
    "lora": (["--model.lora.rank=2", "--model.head_norm=unit"], TransferModule),
}


def write(file: Path) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["body", "label", "split"])
        for number, (split, count) in enumerate({"train": 6, "val": 4, "calibration": 4, "test": 8}.items()):
            writer.writerows([*row, split] for row in make_tickets(count, number))
    return file


def words_of(folder: Path, case: str) -> list[str]:
    return [
        f"--model.backbone={make_encoder(folder / 'bert')}",
        *CASES[case][0],
        f"--data.file={write(folder / 'tickets.csv')}",
        "--data.copies=keep",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        f"--trainer.default_root_dir={folder / 'runs'}",
        "--evaluation.baselines=[majority]",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_head_goes_through_all_verbs(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(tmp_path, case)
    assert main(RECIPE, ["plan", *words]) == 0
    plan = capsys.readouterr().out
    assert ("How it learns" in plan) == (case != "lora")
    assert ("What trains when" in plan) == (case != "zero_shot")
    assert ("Recommendation" in plan) == (case != "zero_shot")
    assert main(RECIPE, ["fit", *words]) == 0
    run = Path(capsys.readouterr().out.split("Run folder: ")[-1].strip())
    module = TransferModule.from_checkpoint(run / "model.ckpt")
    assert isinstance(module, CASES[case][1])
    assert (module.lora is not None) == (case == "lora")
    assert main(RECIPE, ["test", str(run)]) == 0
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["accuracy"]["n"] == 24
    assert main(RECIPE, ["predict", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "predict" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * (6 + 4 + 4 + 8)
    assert {row["queues"][0]["queue"] for row in rows} <= set(QUEUES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.head=few_shots"], "No head `few_shots`.*Did you mean `few_shot`.*linear, few_shot, zero_shot"),
        (["--model.lora.rank=0"], "`lora.rank` of at least 1, got 0"),
        (["--model.lora.target_modules=[quary]"], "named `quary`. Did you mean `query`"),
        (["--model.head=zero_shot", "--model.descriptions={cards: lost ones}"], "`cards`, which is no class"),
        (["--model.head=few_shot", "--data.batch_size=30"], "batch of 30 cannot hold"),
    ],
)
def test_wrong_options_are_said_with_their_value(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    given = [word for word in words_of(tmp_path, "lora") if "lora" not in word and "head" not in word]
    assert main(RECIPE, ["plan", *given, *words]) != 0
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
