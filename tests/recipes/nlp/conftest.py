"""A table of tickets with a tiny encoder that can tell their words apart, and one fitted run that many tests read."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch

from lightning_transfer.cli import main
from recipes.nlp.cli import RECIPE
from tests.recipes.verbs import Run, runner
from tests.unit.modules.text_toys import make_encoder

QUEUES = {
    "billing/invoice": ("invoice", "wrong", "amount", "total"),
    "billing/payment": ("paid", "twice", "card", "charge"),
    "delivery": ("parcel", "late", "waiting", "where"),
    "technical": ("lamp", "broken", "dark", "restart"),
}
FOREIGN = ("weather", "song", "recipe", "holiday")
FILLERS = ("please", "hello", "my", "is", "thanks", "help", "the", "again")
SMALL = ["--model.head_norm=unit", "--model.optimizer=torch.optim.AdamW", "--model.optimizer.init_args.lr=0.01",
         "--trainer.max_epochs=6", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
         "--data.batch_size=16", "--data.label_column=queue", "--data.out_of_scope=none",
         "--data.group_column=customer", "--data.time_column=created", "--data.copies=keep", "--data.val_fraction=0.2",
         "--data.calibration_fraction=0.3"]  # fmt: skip


def make_rows(count: int = 240, seed: int = 0) -> list[dict[str, str]]:
    """Return tickets of all queues and a few of none, by customers who write three times."""
    generator = torch.Generator().manual_seed(seed)

    def some(words: tuple[str, ...], count: int) -> list[str]:
        return [words[place] for place in torch.randint(len(words), (count,), generator=generator).tolist()]

    rows = []
    for number in range(count):
        queue = [*QUEUES, *QUEUES, "none"][number % 9]
        words = some(QUEUES.get(queue, FOREIGN), 3) + some(FILLERS, 2 + number % 5)
        order = torch.randperm(len(words), generator=generator).tolist()
        rows.append(
            {
                "id": f"T{number:03}",
                "created": f"2025-{1 + number // 28:02}-{1 + number % 28:02}T10:00",
                "customer": f"C{number // 3:03}",
                "body": " ".join(words[place] for place in order),
                "queue": queue,
            }
        )
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [word for known in (*QUEUES.values(), FOREIGN, FILLERS) for word in known]
    return make_encoder(tmp_path_factory.mktemp("encoder") / "bert", words, hidden=32)


@pytest.fixture(scope="session")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("tickets") / "tickets.csv", make_rows())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in an empty folder; return its exit code and all that it printed."""
    return runner(RECIPE, tmp_path, monkeypatch, capsys)


def small_fit(encoder: Path, file: Path) -> list[str]:
    return ["fit", f"--model.backbone={encoder}", f"--data.file={file}", *SMALL]


@pytest.fixture(scope="session")
def fitted(encoder: Path, tickets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder of its own."""
    place = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, small_fit(encoder, tickets)) == 0
    (found,) = (place / "runs" / "nlp").iterdir()
    return found
