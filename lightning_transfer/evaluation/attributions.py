"""Where in a picture the evidence for a class is: Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_transfer.backbones.feature_maps import gradient_maps
from lightning_transfer.data import read_image
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.normal_only_maps import image_map

if TYPE_CHECKING:
    from lightning_transfer.evaluation.predictor import Predictor

__all__ = ["explain_classes", "grad_cam"]

# Pictures in one pass: every layer's output is held until its gradient is known.
_BATCH = 8


def grad_cam(backbone: nn.Module, head: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Return how much each place speaks for a class (Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2).

    The channels of the last map, each weighted by the mean of the logit's gradient over its places, added up, and cut
    off below 0: what speaks against the class is not shown. With global average pooling and a linear head this is the
    class activation map divided by the number of places.

    Args:
        backbone: Maps images to pooled features ``(N, F)``.
        head: Maps these to logits ``(N, num_logits)``.
        images: ``(N, channels, H, W)``, as the model reads them.
        classes: One for each image. With a single logit, 1 is the positive class, and 0 what speaks against it.

    Returns:
        ``(N, h, w)``, at least 0, in the units of the logit.

    Raises:
        ValueError: If there is not one class for each image, or no such logit.
        BackboneError: If the backbone keeps no map of the image.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> grad_cam(layers, nn.Linear(2, 3), torch.ones(1, 1, 4, 6), [2]).shape
        torch.Size([1, 4, 6])
    """
    if len(classes) != len(images):
        raise ValueError(f"Expected one class for each of {len(images)} images, got {len(classes)}.")

    def score(features: Tensor) -> Tensor:
        logits: Tensor = head(features)
        most = max(logits.shape[1], 2)
        if not all(0 <= place < most for place in classes):
            raise ValueError(f"Expected classes from 0 to {most - 1}, got {list(classes)}.")
        if logits.shape[1] == 1:
            sign = torch.tensor([1.0 if place else -1.0 for place in classes], device=logits.device)
            return logits[:, 0] * sign
        return logits[torch.arange(len(logits)), list(classes)]

    maps, gradients = gradient_maps(backbone, images, score)
    weights = gradients.float().mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * maps.float()).sum(dim=1))


def explain_classes(predictor: Predictor, items: Sequence[Any], classes: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return Grad-CAM of one class for each picture, ``(H, W)`` at the picture's own size.

    Args:
        predictor: A restored classifier of images.
        items: Paths, PIL images or arrays; of medical images parts of files too.
        classes: Place of a class in the schema, for each item.

    Raises:
        TransferError: If the model reads no whole images, or decides without logits of a head.
    """
    module, preprocessing = predictor.module, predictor.schema.preprocessing
    if preprocessing.get("kind") not in ("image", "scan") or preprocessing.get("tiling"):
        raise TransferError("Grad-CAM is made for whole images, and this model reads tiles or something else.")
    head = module.head
    if head is None or getattr(module, "learns_from", "all") != "all":
        raise TransferError(f"Grad-CAM is made for a classifier's head, and `{type(module).__name__}` has none.")
    device = next(module.parameters()).device
    read = getattr(predictor.preprocess, "read", read_image)  # medical images by their own rules
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(items), _BATCH):
        chunk = items[start : start + _BATCH]
        inputs = torch.stack([predictor.preprocess(item) for item in chunk]).to(device)
        # In eval mode, as `load` leaves it: BatchNorm must not learn from what it explains.
        maps = grad_cam(module.backbone, head, inputs, classes[start : start + _BATCH]).cpu()
        for item, grid in zip(chunk, maps, strict=True):
            height, width = read(item).shape[:2]
            found.append(image_map(grid, (height, width), preprocessing, sigma=0.0))
    return found
