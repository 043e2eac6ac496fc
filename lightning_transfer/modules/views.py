"""Other views of the same pictures, to average a model's answers over: test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_transfer.errors import closest
from lightning_transfer.types import Task

__all__ = ["VIEWS", "check_views", "mean_logits", "views_of"]

_SHIFT, _DEGREES, _SCALE = 0.04, 5.0, 0.06

# Rows of the map from places in the new picture to places in the old one, both in [-1, 1].
_Rows = tuple[tuple[float, ...], ...]


def _turned(degrees: float) -> _Rows:
    angle = math.radians(degrees)
    return (math.cos(angle), -math.sin(angle), 0.0), (math.sin(angle), math.cos(angle), 0.0)


VIEWS: dict[str, tuple[_Rows, ...]] = {
    "shift": tuple(
        ((1.0, 0.0, 2 * x), (0.0, 1.0, 2 * y)) for x, y in ((_SHIFT, 0), (-_SHIFT, 0), (0, _SHIFT), (0, -_SHIFT))
    ),
    "rotate": (_turned(_DEGREES), _turned(-_DEGREES)),
    "scale": tuple(((scale, 0.0, 0.0), (0.0, scale, 0.0)) for scale in (1 - _SCALE, 1 + _SCALE)),
    "horizontal_flip": (((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),),
}
"""Name -> the views that it stands for: four shifts by 4% of the side, turns by 5 degrees to either side, 6% larger and
smaller, mirrored. A mirrored chest has its heart on the right: that view is for what has no sides."""


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        ValueError: If one is unknown, or named twice.

    Example:
        >>> check_views(["shift", "rotate"])
        ('shift', 'rotate')
    """
    for name in names:
        if name not in VIEWS:
            raise ValueError(f"Unknown test-time view `{name}`.{closest(name, VIEWS)} Known: {', '.join(VIEWS)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Expected each test-time view once, got {list(names)}.")
    return tuple(names)


def views_of(images: Tensor, names: Sequence[str]) -> Iterator[Tensor]:
    """Yield pictures as they are, then their other views; what moves in at a side repeats the edge.

    Args:
        images: ``(N, channels, H, W)``.
        names: Of `VIEWS`.

    Example:
        >>> [view.flatten().tolist() for view in views_of(torch.tensor([[[[1.0, 2.0]]]]), ["horizontal_flip"])]
        [[1.0, 2.0], [2.0, 1.0]]
    """
    yield images
    for name in names:
        for rows in VIEWS[name]:
            if name == "horizontal_flip":
                yield images.flip(-1)  # exactly, without resampling
                continue
            # In pixels, not in shares of a side, or a turned picture that is not square would be sheared.
            height, width = images.shape[-2:]
            matrix = torch.tensor(rows)
            matrix[0, 1] *= height / width
            matrix[1, 0] *= width / height
            theta = matrix[None].expand(len(images), -1, -1).to(images.device)
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
            moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
            yield moved.to(images.dtype)


def mean_logits(logits: Tensor, task: Task) -> Tensor:
    """Return the logits whose probabilities are the mean over views, or over models.

    The mean of probabilities, not of logits: one view that is very sure of itself does not outvote all others.

    Args:
        logits: ``(views, N, num_logits)``.
        task: ``multiclass`` takes the probabilities of a softmax, the others those of a sigmoid.

    Returns:
        ``(N, num_logits)``, finite where the logits are.

    Example:
        >>> mean_logits(torch.tensor([[[0.0]], [[100.0]]]), "binary").sigmoid()
        tensor([[0.7500]])
    """
    wide = logits.double() if logits.device.type != "mps" else logits.float()
    count = math.log(len(wide))
    if task == "multiclass":
        return (wide.log_softmax(dim=-1).logsumexp(dim=0) - count).to(logits.dtype)
    yes, no = (F.logsigmoid(sign * wide).logsumexp(dim=0) for sign in (1, -1))
    return (yes - no).to(logits.dtype)
