"""A run small enough to export in seconds, and pictures of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.modules import ClassificationModule, NormalOnlyModule, TransferModule
from lightning_transfer.types import Calibration, OperatingPoint, Schema

CLASSES = ("crack", "free", "pit")
SIZE = (32, 32)
POINTS = tuple(
    OperatingPoint(rate, threshold, None, rate, (0.0, 1.0), 100, 10) for rate, threshold in ((0.05, 0.62), (0.01, 0.9))
)
CALIBRATION = Calibration(temperature=0.5, threshold=0.62, rule="by hand", n=7, points=POINTS)


def spec(**changes) -> ImagePreprocessing:
    fields = {"size": SIZE, "channels": 3, "mean": (0.4, 0.5, 0.6), "std": (0.25, 0.2, 0.3), **changes}
    return ImagePreprocessing(**fields)


def schema(**changes) -> Schema:
    fields = {"task": "multiclass", "classes": CLASSES, "negative_class": "free", "preprocessing": spec().to_dict()}
    return Schema(**{**fields, **changes})


def classifier(of: Schema | None = None, **options) -> ClassificationModule:
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random", head_norm="batchnorm", **options)
    module.use_schema(of or schema())
    module.configure_model()
    # Fresh weights give nearly the same logits for all pictures.
    with torch.no_grad():
        module.train()(torch.randn(64, 3, *SIZE))
        module.head[-1].weight.mul_(4.0)
    module.calibration = CALIBRATION
    return module.eval()


def normal_only(num_neighbours: int = 3) -> NormalOnlyModule:
    torch.manual_seed(0)
    module = NormalOnlyModule("timm/test_resnet", weights="random", num_neighbours=num_neighbours)
    module.use_schema(schema(task="binary", classes=("free", "defect")))
    module.configure_model()
    module.eval()
    _, patches = module.patches(torch.randn(8, 3, *SIZE))
    module.bank.fill(patches.flatten(2).transpose(1, 2).flatten(0, 1)[::3])
    module.bank.standardise(module.bank(patches + 0.1 * torch.randn_like(patches))[0])
    module.calibration = CALIBRATION
    return module


def save(folder: Path, module: TransferModule) -> Path:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "model.ckpt")
    return folder


def pixels(height: int, width: int, channels: int | None = None, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_pictures(folder: Path) -> list[Path]:
    """One file of each kind that a camera, a scanner or an editor leaves."""
    rgb, grey, alpha = pixels(41, 30, 3), pixels(20, 37), pixels(29, 31, 4)
    deep = pixels(33, 28, dtype=np.uint16)
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    pictures = {
        "rgb.png": Image.fromarray(rgb),
        "rgb.jpg": Image.fromarray(rgb),
        "lying.jpg": Image.fromarray(rgb),
        "grey.png": Image.fromarray(grey),
        "black_and_white.png": Image.fromarray(grey).convert("1"),
        "palette.png": Image.fromarray(rgb).convert("P"),
        "seen_through.png": Image.fromarray(alpha),
        "grey_seen_through.png": Image.fromarray(alpha).convert("LA"),
        "palette_seen_through.gif": Image.fromarray(grey).convert("P"),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
        "deep.png": Image.fromarray(deep),
        "deep.tif": Image.fromarray(deep),
        "integers.tif": Image.fromarray(deep.astype(np.int32)),
        "floats.tif": Image.fromarray((grey / 255).astype(np.float32)),
        "exact.png": Image.fromarray(pixels(*SIZE, 3)),
        "thin.bmp": Image.fromarray(pixels(3, 90, 3)),
    }
    options = {"lying.jpg": {"exif": exif}, "palette_seen_through.gif": {"transparency": 3}}
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / name)
        picture.save(paths[-1], **options.get(name, {}))
    return paths
