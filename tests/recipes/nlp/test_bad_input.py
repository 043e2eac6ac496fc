"""What is wrong with a table or a model is said with its value, and no half a run is left."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.recipes.nlp.conftest import SMALL, make_rows, small_fit, write_rows

Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": ""}, "the column `body` is empty"),
        ({"id": "T001"}, "`T001` is already the id of row"),
    ],
)
def test_a_bad_row_stops_a_fit_or_is_skipped(
    encoder: Path, tmp_path: Path, run: Run, change: dict, message: str
) -> None:
    rows = make_rows()
    rows[7] |= change
    file = write_rows(tmp_path / "tickets.csv", rows)
    code, printed = run(*small_fit(encoder, file))
    assert code == 2, printed
    assert message in printed
    assert "Traceback" not in printed
    code, printed = run("check-data", *small_fit(encoder, file)[1:], "--data.on_bad_file=skip")
    assert "1 records cannot be used" in printed


@pytest.mark.parametrize(
    ("encoding", "bom"), [("utf-8-sig", ""), ("latin-1", ""), ("utf-16", "")], ids=["bom", "latin-1", "utf-16"]
)
def test_tables_in_other_encodings_are_read(encoder: Path, tmp_path: Path, run: Run, encoding: str, bom: str) -> None:
    rows = make_rows()
    for row in rows:
        row["body"] += " grüße"
    file = write_rows(tmp_path / "tickets.csv", rows)
    file.write_bytes((bom + file.read_text(encoding="utf-8")).encode(encoding))
    code, printed = run("check-data", *small_fit(encoder, file)[1:])
    assert "240" in printed or code in (0, 1), printed
    assert "Traceback" not in printed
    assert "Error:" not in printed


def test_a_ragged_table_names_its_row(encoder: Path, tmp_path: Path, run: Run) -> None:
    file = write_rows(tmp_path / "tickets.csv", make_rows())
    lines = file.read_text().splitlines()
    lines[12] += ",one,more"
    file.write_text("\n".join(lines) + "\n")
    code, printed = run(*small_fit(encoder, file))
    assert code == 2, printed
    assert "row 13" in printed or "row 12" in printed


def test_one_queue_alone_is_an_error(encoder: Path, tmp_path: Path, run: Run) -> None:
    file = write_rows(tmp_path / "tickets.csv", [{**row, "queue": "billing"} for row in make_rows(60)])
    words = [word for word in small_fit(encoder, file) if "out_of_scope" not in word]
    code, printed = run(*words)
    assert code == 2, printed
    assert "billing" in printed
    assert "Traceback" not in printed


def test_an_image_backbone_is_an_error(tickets: Path, run: Run) -> None:
    words = ["fit", "--model.backbone=timm/test_resnet", "--model.weights=random", f"--data.file={tickets}", *SMALL]
    code, printed = run(*words)
    assert code == 2, printed
    assert "`timm/test_resnet` reads image, and these data are texts" in printed


def test_a_tokenizer_of_another_model_is_an_error(encoder: Path, tickets: Path, tmp_path: Path, run: Run) -> None:
    import shutil

    from tokenizers import Tokenizer

    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    other = Tokenizer.from_file(str(folder / "tokenizer.json"))
    other.add_tokens([f"extra{number}" for number in range(30)])
    other.save(str(folder / "tokenizer.json"))
    code, printed = run(*small_fit(folder, tickets))
    assert code == 2, printed
    assert "The tokenizer belongs to another model" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device that can")
def test_a_precision_that_the_device_lacks_is_an_error(encoder: Path, tickets: Path, run: Run) -> None:
    code, printed = run(*small_fit(encoder, tickets), "--trainer.precision=transformer-engine")
    assert code != 0
    assert "Traceback" not in printed
    assert "transformer" in printed


def test_a_column_that_is_not_there_is_named(encoder: Path, tickets: Path, run: Run) -> None:
    code, printed = run(*small_fit(encoder, tickets), "--data.body_column=text")
    assert code == 2, printed
    assert "`text`" in printed
    assert "body" in printed
