"""Make the embedded image backbone again from nothing: pretrain it on formula-driven images.

Question: does a network that has seen only formulas transfer to real surfaces?

    nice -n 10 python benchmarks/pretrain_embedded.py                        # an hour on a core with AMX
    python benchmarks/pretrain_embedded.py --probe-only ../shared/data/magnetic_tile --probe-size 128

The first line writes ``formula_resnet_tiny.safetensors`` and its card into ``lightning_transfer/backbones/embedded``.
The second trains nothing but linear probes and keeps nothing of that data.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lightning_transfer.backbones import timm_models
from lightning_transfer.data.formula_images import FORMULA_CLASSES, FormulaImages
from lightning_transfer.data.formula_marks import MARKS
from lightning_transfer.data.formula_textures import TEXTURES

NAME = "formula_resnet_tiny"
EMBEDDED = Path(__file__).parents[1] / "lightning_transfer" / "backbones" / "embedded"
SIZE = 64
VISIBLE = 0.4  # height of a mark, in deviations of the texture of most contrast
TRAIN_SEED, HELD_OUT_SEED = 0, 1_000_003
ARCHITECTURE = "resnet10t"
ARCHITECTURE_CONFIG: dict[str, Any] = {
    "layers": [1, 1, 1, 1],
    "channels": [32, 64, 160, 320],
    "stem_width": 8,
    "stem_type": "deep_tiered",
    "avg_down": True,
    "stem_pool": False,
    "global_pool": "catavgmax",
}


def build_backbone() -> nn.Module:
    """Build the backbone with random weights."""
    return timm_models.build(ARCHITECTURE, ARCHITECTURE_CONFIG).module


def build_head() -> nn.Linear:
    """Build the classifier of the source task with random weights."""
    return nn.Linear(timm_models.build(ARCHITECTURE, ARCHITECTURE_CONFIG).num_features, len(FORMULA_CLASSES))


def draw(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw a whole set of images as bytes, and their labels.

    Returns:
        Images ``(N, 4, 64, 64)``, whose fourth channel is 255 where the mark is seen, and labels ``(N,)``.
    """
    source = FormulaImages(num_images, size=SIZE, seed=seed)
    images = np.empty((num_images, 4, SIZE, SIZE), dtype=np.uint8)
    for index in range(num_images):
        image, _, mark = source.draw_with_mark(index)
        images[index, :3] = np.rint(image * 255)
        images[index, 3] = 255 * (np.abs(mark) > VISIBLE)
    return torch.from_numpy(images), torch.arange(num_images) % len(FORMULA_CLASSES)


def normalise(images: Tensor) -> Tensor:
    """Scale bytes to ``[0, 1]``, then by the mean and deviation of the card."""
    return (images.float() / 255 - 0.5) / 0.25


def augment(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, mirror, stretch and shift a batch as one, and change light and contrast of each image.

    Returns:
        Normalised images ``(N, 3, 64, 64)``, and whether each of 8 x 8 cells shows the mark, ``(N, 8, 8)``.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    turn, mirror = torch.randint(0, 8, (2,), generator=generator).tolist()
    images = torch.rot90(images, turn % 4, (2, 3)).float()
    images = images.flip(3) if mirror % 2 else images
    # Down too, and mirrored around: marks on real parts are often smaller than those that were drawn.
    height, width = (int(side) for side in uniform(0.6 * SIZE, 1.3 * SIZE, 2))
    images = nn.functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
    down, right = (max(3, (SIZE - side) // 2 + 3) for side in (height, width))
    images = nn.functional.pad(images, (right, right, down, down), mode="reflect")
    top, left = (int(torch.randint(side - SIZE + 1, (1,), generator=generator)) for side in images.shape[2:])
    images = images[:, :, top : top + SIZE, left : left + SIZE]
    cells = nn.functional.max_pool2d(images[:, 3], SIZE // 8) > 100
    contrast, level = uniform(0.5, 1.3, len(images), 1, 1, 1), uniform(-0.5, 0.5, len(images), 1, 1, 1)
    return normalise(images[:, :3]) * contrast + level, cells


@torch.no_grad()
def features_of(backbone: nn.Module, images: Tensor, batch: int = 256) -> Tensor:
    """Return pooled features of byte images."""
    backbone.eval()
    return torch.cat([backbone(normalise(part[:, :3])) for part in images.split(batch)])


def pretrain(args: argparse.Namespace) -> tuple[nn.Module, nn.Linear]:
    """Train backbone and source head by AdamW on class, kind of mark, and where the mark is.

    The rate stays high until a short end: features at the end of a long decay are better at the source task and worse
    at others.
    """
    torch.manual_seed(TRAIN_SEED)
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    started = time.perf_counter()
    images, labels = draw(args.images, TRAIN_SEED)
    print(f"Drew {len(images)} images in {time.perf_counter() - started:.0f} s", flush=True)
    backbone, head = build_backbone(), build_head()
    # Says of each cell of an earlier, finer map which mark it shows; thrown away afterwards.
    local_head = nn.Conv2d(ARCHITECTURE_CONFIG["channels"][2], len(MARKS), 1)
    kept: dict[str, Tensor] = {}
    backbone.layer3.register_forward_hook(lambda *items: kept.update(map=items[2]))  # type: ignore[operator,union-attr]
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = [*backbone.parameters(), *head.parameters(), *local_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.05)
    steps = len(images) // args.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(share_of_rate, total_steps=args.epochs * steps))
    for epoch in range(args.epochs):
        backbone.train()
        order = torch.randperm(len(images), generator=generator)
        total, correct, started = 0.0, 0, time.perf_counter()
        for step in range(steps):
            chosen = order[step * args.batch_size : (step + 1) * args.batch_size]
            batch, cells = augment(images[chosen], generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                features = backbone(batch.contiguous(memory_format=torch.channels_last))
                local = local_head(kept["map"])
            logits, target = head(features.float()), labels[chosen]
            loss = losses(logits, local.float(), target, cells)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
            correct += int((logits.argmax(1) == target).sum())
        accuracy = correct / (steps * args.batch_size)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch:2d}  loss {total / steps:.3f}  accuracy {accuracy:.3f}  {seconds:.0f} s", flush=True)
    backbone.layer3._forward_hooks.clear()  # type: ignore[union-attr]
    return backbone, head


def share_of_rate(step: int, total_steps: int) -> float:
    """Rise over the first twentieth, stay, and fall to nothing over the last."""
    edge = max(1, total_steps // 20)
    return min(1.0, (step + 1) / edge, max(0.0, (total_steps - step) / edge))


def losses(logits: Tensor, local: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Sum the cross-entropies of class, of the mark whatever the texture, and of the mark in each cell."""
    mark = target % len(MARKS)
    of_marks = logits.log_softmax(1).view(-1, len(TEXTURES), len(MARKS)).logsumexp(1)
    of_cells = torch.where(cells, mark[:, None, None], 0)
    # Most cells show no mark.
    weight = torch.ones(len(MARKS))
    weight[0] = 0.3
    return (
        nn.functional.cross_entropy(logits, target, label_smoothing=0.05)
        + nn.functional.nll_loss(of_marks, mark)
        + 2 * nn.functional.cross_entropy(local, of_cells, weight=weight)
    )


def pack(backbone: nn.Module, head: nn.Linear) -> dict[str, Tensor]:
    """Return the tensors to store: matrices and kernels in half precision, vectors and statistics as they are."""
    tensors = {**backbone.state_dict(), **{f"source_head.{name}": value for name, value in head.state_dict().items()}}
    return {
        name: (value.half() if value.ndim > 1 else value.clone()).contiguous()
        for name, value in sorted(tensors.items())
    }


def unpack(tensors: dict[str, Tensor]) -> tuple[nn.Module, nn.Linear]:
    """Rebuild backbone and source head from stored tensors."""
    backbone = build_backbone()
    backbone.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("source_head.")})
    head = build_head()
    head.load_state_dict({key: tensors[f"source_head.{key}"] for key in ("weight", "bias")})
    return backbone.eval(), head.eval()


def write_card(folder: Path, backbone: nn.Module, head: nn.Linear, images: int, epochs: int) -> None:
    """Write the card that stands beside the weights."""
    card = {
        "name": f"embedded/{NAME}",
        "architecture": f"timm/{ARCHITECTURE}",
        "architecture_config": ARCHITECTURE_CONFIG,
        "source": "embedded",
        "licence": "Apache-2.0",
        "modality": "image",
        "num_features": head.in_features,
        "num_parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "input_size": [3, SIZE, SIZE],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "padding": "torch",
        "batchnorm": "live",
        "pretraining": (
            f"{images} formula-driven images of {len(FORMULA_CLASSES)} classes ({len(TEXTURES)} textures, each with "
            f"{len(MARKS)} kinds of mark; FormulaImages, seed {TRAIN_SEED}), {epochs} epochs; no third party's data. "
            "Made by benchmarks/pretrain_embedded.py."
        ),
    }
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")


def held_out_accuracy(backbone: nn.Module, head: nn.Linear, num_images: int) -> tuple[float, float, float]:
    """Return accuracy over classes, over textures alone and over marks alone, on a seed that training never saw."""
    images, labels = draw(num_images, HELD_OUT_SEED)
    with torch.no_grad():
        preds = head(features_of(backbone, images)).argmax(1)
    marks = len(MARKS)
    right = [(preds == labels), (preds // marks == labels // marks), (preds % marks == labels % marks)]
    return tuple(float(item.float().mean()) for item in right)  # type: ignore[return-value]


def read_tiles(root: Path, size: int = SIZE) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Read a folder with ``manifest.csv`` as images stretched to squares, labels and groups."""
    from PIL import Image

    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    group = "tile_group" if "tile_group" in rows[0] else "group"
    images = []
    for row in rows:
        with Image.open(root / row["path"]) as image:
            stretched = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        images.append(np.asarray(stretched).transpose(2, 0, 1))
    labels, groups = (np.array([row[key] for row in rows]) for key in ("label", group))
    return torch.from_numpy(np.stack(images)), labels, groups


def linear_probe(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[float, float, float, float]:
    """Return mean and deviation over five group folds of macro-F1 and of the AUROC of defect against free."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    negative = "free" if "free" in labels else "good"
    scores = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, labels, groups):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced"))
        probe.fit(features[train], labels[train])
        chances = probe.predict_proba(features[test])
        f1 = f1_score(labels[test], probe.classes_[chances.argmax(1)], average="macro")
        defect = 1 - chances[:, list(probe.classes_).index(negative)]
        scores.append((f1, roc_auc_score(labels[test] != negative, defect)))
    (f1_mean, auroc_mean), (f1_std, auroc_std) = np.mean(scores, axis=0), np.std(scores, axis=0)
    return float(f1_mean), float(f1_std), float(auroc_mean), float(auroc_std)


def probe_table(root: Path, embedded: Path, size: int) -> None:
    """Print linear probes on random weights and on the embedded ones."""
    images, labels, groups = read_tiles(root, size)
    majority = max(np.unique(labels, return_counts=True)[1]) / len(labels)
    print(f"{root.name}: {len(labels)} images at {size} px, {len(set(groups))} groups, majority class {majority:.2f}")
    print("| weights | macro-F1 | AUROC, defect against none |\n|---|---|---|")
    makers: dict[str, Callable[[], nn.Module]] = {
        "random": build_backbone,
        f"embedded/{NAME}": lambda: unpack(load_file(embedded / f"{NAME}.safetensors"))[0],
    }
    for name, make in makers.items():
        torch.manual_seed(0)
        f1, f1_std, auroc, auroc_std = linear_probe(features_of(make(), images).numpy(), labels, groups)
        print(f"| {name} | {f1:.3f} ± {f1_std:.3f} | {auroc:.3f} ± {auroc_std:.3f} |", flush=True)


def main() -> None:
    """Pretrain, store, and print what held-out seeds say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder of the weights and the card")
    parser.add_argument("--images", type=int, default=204_800)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="twice as fast with AMX")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=2_048, help="images of the held-out seed")
    parser.add_argument("--probe-only", type=Path, help="folder with manifest.csv: only print linear probes on it")
    parser.add_argument("--probe-size", type=int, default=SIZE, help="pixels; small defects need more than 64")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.probe_only is not None:
        probe_table(args.probe_only, args.out, args.probe_size)
        return
    started = time.perf_counter()
    backbone, head = pretrain(args)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / f"{NAME}.safetensors"
    weights.write_bytes(save(pack(backbone, head), metadata={"format": "pt"}))
    write_card(args.out, backbone, head, args.images, args.epochs)
    accuracy, texture, mark = held_out_accuracy(*unpack(load_file(weights)), args.held_out)
    print("| held-out seed | accuracy | chance |\n|---|---|---|")
    print(f"| class | {accuracy:.3f} | {1 / len(FORMULA_CLASSES):.3f} |")
    print(f"| texture | {texture:.3f} | {1 / len(TEXTURES):.3f} |\n| mark | {mark:.3f} | {1 / len(MARKS):.3f} |")
    print(f"{weights.name}: {weights.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
