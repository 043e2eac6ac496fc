"""Small plates with bright squares, and their masks: what a decoder learns in seconds."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("good", "pit", "stain")


def write_plates(root: Path, count: int = 60, size: tuple[int, int] = (40, 32)) -> Path:
    """Write pictures, masks and a manifest; two pictures are of one group."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(count):
        kind = KINDS[place % 3]
        pixels, mask = rng.normal(90, 12, size), np.zeros(size, dtype=np.uint8)
        if kind != "good":
            side = 6 if kind == "pit" else 10
            top, left = rng.integers(0, size[0] - side), rng.integers(0, size[1] - side)
            mask[top : top + side, left : left + side] = 255
            pixels[mask > 0] += 120 if kind == "pit" else -70
        for folder, values in (("images", np.clip(pixels, 0, 255).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"{place:03d}.png")
        mask_path = "" if kind == "good" else f"masks/{place:03d}.png"
        rows.append((f"images/{place:03d}.png", mask_path, kind, f"g{place // 6}"))
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "mask", "label", "group"), *rows])
    return root


FIT = ("fit", "--model.head=segmentation", "--model.backbone=timm/test_resnet", "--model.weights=random",
       "--data.manifest=manifest.csv", "--data.negative_class=good", "--data.image_size=32", "--data.batch_size=8",
       "--data.augmentations=[horizontal_flip, vertical_flip]", "--trainer.accelerator=cpu", "--seed_everything=0",
       "--trainer.enable_progress_bar=false", "--evaluation.baselines=[majority, plain]")  # fmt: skip
