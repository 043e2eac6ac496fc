"""What do contrastive learning, a frozen encoder, and class names alone reach with 5 and 10 banking77 tickets a class?

Each draw takes so many training tickets of every class by its seed; all tickets of the test file judge. Rows:

- ``names``: `ZeroShotModule`, the classes' names alone, no ticket at all; ``descriptions``: the config's descriptions.
- ``probe``: logistic regression on the frozen encoder, with the same penalty as the few-shot head.
- ``few-shot``: `FewShotModule` as the recipe's config ``banking77_minilm_fewshot.yaml`` has it.

``--choose`` judges by other tickets of the training file instead (30 a class, none of the draw's): rates, epochs and
the like were chosen so, and the test file was read once.

    python -m benchmarks.few_shot [--data DIR] [--sizes 5 10] [--draws 0 1 2 3 4] [--choose] [KEY=VALUE ...]

``KEY=VALUE`` changes an option of the few-shot module (``descriptions=names``), or ``lr``, ``epochs``, ``batch_size``.
Seconds are those of the CPU for training and heads, without reading and judging; the last line is the peak memory.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import random
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from sklearn.linear_model import LogisticRegression

from lightning_transfer import BackboneFreezeUnfreeze
from lightning_transfer.evaluation import collect_features, collect_outputs
from lightning_transfer.modules import FewShotModule, TransferModule, ZeroShotModule
from recipes.nlp.data import TextDataModule

CONFIG = Path(__file__).parents[1] / "recipes" / "nlp" / "configs" / "banking77_minilm_fewshot.yaml"
JUDGES = 30
Rows = list[tuple[str, str]]


def main() -> None:
    """Run all draws, then print a table with a row for each size and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE")
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "banking77"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--backbone", help="A folder or name; None takes the config's.")
    parser.add_argument("--sizes", nargs="*", type=int, default=[5, 10])
    parser.add_argument("--draws", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--choose", action="store_true", help="Judge by training tickets outside of the draw.")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in args.options)}
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for size in args.sizes:
        for draw in args.draws:
            for name, accuracy, seconds in run_draw(args, config, changes, size, draw):
                found.setdefault((size, name), []).append((accuracy, seconds))
                print(f"{size} a class, draw {draw}: {name} {accuracy:.4f} ({seconds:.0f} s)", flush=True)
    print(
        "\n| tickets a class | way | draws | accuracy, mean ± sd | lowest | CPU s a draw |\n|---|---|---|---|---|---|"
    )
    for (size, name), pairs in found.items():
        scores, seconds = (np.array(column) for column in zip(*pairs, strict=True))
        spread = f"{scores.mean():.4f} ± {scores.std(ddof=1) if len(scores) > 1 else 0:.4f}"
        print(f"| {size} | {name} | {len(scores)} | {spread} | {scores.min():.4f} | {seconds.mean():.0f} |")
    print(f"\nPeak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def run_draw(
    args: argparse.Namespace, config: dict[str, Any], changes: dict[str, Any], size: int, draw: int
) -> list[tuple[str, float, float]]:
    """Return name, accuracy and seconds of each way."""
    changes = dict(changes)
    epochs = int(changes.pop("epochs", config["trainer"]["max_epochs"]))
    batch_size = int(changes.pop("batch_size", config["data"]["batch_size"]))
    model = {key: value for key, value in config["model"].items() if key not in ("head", "optimizer", "scheduler")}
    optimizer = dict(config["model"]["optimizer"]["init_args"])
    optimizer["lr"] = float(changes.pop("lr", optimizer["lr"]))
    scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    model |= changes | ({"backbone": args.backbone} if args.backbone else {})
    pl.seed_everything(draw, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        file = write_draw(args.data, size, draw, choose=args.choose, folder=Path(folder))

        def data_of(module: TransferModule) -> TextDataModule:
            data = TextDataModule(str(file), copies="keep", batch_size=batch_size, val_fraction=0)
            data.use_card(module.card)
            return data

        module = FewShotModule(**model, optimizer=partial(torch.optim.AdamW, **optimizer), scheduler=scheduler)
        data = data_of(module)
        data.setup("fit")
        start = time.process_time()
        probe = judge_probe(module, data)
        rows = [("probe", probe, time.process_time() - start)]
        start = time.process_time()
        data = data_of(module)
        trainer = make_trainer(epochs, config["trainer"])
        trainer.fit(module, datamodule=data)
        seconds = time.process_time() - start
        rows.append(("few-shot", accuracy_of(module, data), seconds))
        if draw == args.draws[0] and size == args.sizes[0]:
            rows.insert(0, ("names", judge_unseen(model["backbone"], None, data_of), 0.0))
            if model.get("descriptions") not in (None, "names"):
                told = judge_unseen(model["backbone"], model["descriptions"], data_of)
                rows.insert(1, ("descriptions", told, 0.0))
    return rows


def write_draw(data: Path, size: int, draw: int, *, choose: bool, folder: Path) -> Path:
    """Write the table of a draw: its training tickets, and those that judge as the split ``test``."""
    chance = random.Random(draw)
    by_class: dict[str, list[str]] = {}
    for text, label in read(data / "train.csv"):
        by_class.setdefault(label, []).append(text)
    train: Rows = []
    others: Rows = []
    for label, texts in sorted(by_class.items()):
        drawn = chance.sample(texts, min(size + JUDGES, len(texts)))  # the smallest class has 35
        train += [(text, label) for text in drawn[:size]]
        others += [(text, label) for text in drawn[size:]]
    test = others if choose else read(data / "test.csv")
    file = folder / "tickets.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["body", "label", "split"])
        for split, rows in (("train", train), ("test", test)):
            writer.writerows([text, label, split] for text, label in rows)
    return file


def read(file: Path) -> Rows:
    """Return texts and labels of one of the set's files."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["text"], row["category"]) for row in csv.DictReader(stream)]


def make_trainer(epochs: int, options: dict[str, Any]) -> pl.Trainer:
    """Return a trainer that writes nothing, with the config's precision and schedule."""
    freezers = [item for item in options["callbacks"] if item["class_path"].endswith("BackboneFreezeUnfreeze")]
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", precision=options.get("precision", "32-true"), logger=False,
        callbacks=[BackboneFreezeUnfreeze(**item["init_args"], verbose=False) for item in freezers],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def judge_probe(module: FewShotModule, data: TextDataModule) -> float:
    """Return the accuracy of a logistic regression on the encoder as it is."""
    parts = []
    for split in ("train", "test"):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(collect_features(module.backbone, data.ordered_dataloader(split), show_progress=False))
    train, test = parts
    directions = [torch.nn.functional.normalize(part.features, dim=1).double().numpy() for part in parts]
    head = LogisticRegression(C=module.inverse_penalty, max_iter=300).fit(directions[0], train.target)
    return float(head.score(directions[1], test.target))


def judge_unseen(backbone: str, descriptions: str | None, data_of: Callable[[TransferModule], TextDataModule]) -> float:
    """Return the accuracy of descriptions, or of the classes' names, without any ticket."""
    module = ZeroShotModule(backbone, descriptions=descriptions)
    data = data_of(module)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return accuracy_of(module, data)


def accuracy_of(module: TransferModule, data: TextDataModule) -> float:
    """Return the share of the judging tickets that a module routes rightly."""
    with torch.autocast("cpu", torch.bfloat16):
        outputs = collect_outputs(module, data.test_dataloader(), show_progress=False)
    assert outputs.target is not None
    return float((outputs.logits.argmax(1) == outputs.target).float().mean())


if __name__ == "__main__":
    main()
