"""Masks without a network: a classifier of single pixels, by what filters say of their surroundings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from lightning_transfer.errors import TransferError

__all__ = ["FILTER_SIZES", "PixelClassifier", "fit_pixels", "pixel_features"]

FILTER_SIZES = (0.7, 1.6, 3.5, 8.0)
"""Standard deviations of the Gaussians, in pixels of the network's frame."""

_PIXELS_OF_CLASS = 100
_ABSENT = -20.0  # log-probability of a class that training never showed


def pixel_features(image: Tensor) -> NDArray[np.float32]:
    """Return what filters say of each pixel of a normalised image ``(C, h, w)``, as ``(h * w, F)``.

    Brightness as it is, and for each of `FILTER_SIZES` smoothed, its gradient, its Laplacian, and how far the pixel is
    from its surroundings: what interactive tools for pixel classification use (Berg et al. 2019, ilastik).

    Example:
        >>> pixel_features(torch.zeros(3, 8, 8)).shape
        (64, 17)
    """
    grey = image.float().mean(dim=0).numpy()
    planes = [grey]
    for size in FILTER_SIZES:
        smooth = ndimage.gaussian_filter(grey, size)
        planes += [
            smooth,
            ndimage.gaussian_gradient_magnitude(grey, size),
            ndimage.gaussian_laplace(grey, size),
            grey - smooth,
        ]
    return np.stack([plane.ravel() for plane in planes], axis=1).astype(np.float32)


class PixelClassifier:
    """What `fit_pixels` learnt.

    Args:
        model: Fitted on rows of `pixel_features`.
        num_classes: Background included.
    """

    def __init__(self, model: HistGradientBoostingClassifier, num_classes: int) -> None:
        self.model = model
        self.num_classes = num_classes

    def __call__(self, image: Tensor) -> Tensor:
        """Return the logarithms of the probabilities ``(C, h, w)`` of an image ``(channels, h, w)``."""
        found = self.model.predict_proba(pixel_features(image))
        logs = np.full((len(found), self.num_classes), _ABSENT)
        logs[:, self.model.classes_.astype(np.int64)] = np.log(np.maximum(found, np.exp(_ABSENT)))
        return torch.from_numpy(logs.T.reshape(self.num_classes, *image.shape[1:])).float()


def fit_pixels(
    load: Callable[[int], tuple[Tensor, Tensor]], count: int, num_classes: int, *, max_images: int = 300, seed: int = 0
) -> PixelClassifier:
    """Learn to tell the classes of single pixels, from some of each class of each training image.

    Pixels are weighted by how many they stand for, so that rare classes keep their share.

    Args:
        load: Returns image ``(channels, h, w)`` and classes ``(h, w)``, -100 where unknown, of a training record.
        count: Training records.
        num_classes: Background included.
        max_images: Images that are looked at; of more a random share.
        seed: Of what is drawn.

    Raises:
        TransferError: If all known pixels are of one class.
    """
    rng = np.random.default_rng(seed)
    places: Sequence[int] = range(count)
    if count > max_images:
        places = sorted(rng.choice(count, max_images, replace=False).tolist())
    rows, labels, weights = [], [], []
    for place in places:
        image, target = load(int(place))
        classes = target.numpy().ravel()
        features = pixel_features(image)
        for name in np.unique(classes[classes >= 0]):
            own = np.flatnonzero(classes == name)
            chosen = own if len(own) <= _PIXELS_OF_CLASS else rng.choice(own, _PIXELS_OF_CLASS, replace=False)
            rows.append(features[chosen])
            labels.append(np.full(len(chosen), name))
            weights.append(np.full(len(chosen), len(own) / len(chosen)))
    if not labels or len(np.unique(np.concatenate(labels))) < 2:
        raise TransferError("The training masks show one class alone, so there is nothing to tell apart.")
    weight = np.concatenate(weights)
    model = HistGradientBoostingClassifier(max_iter=100, random_state=seed, early_stopping=False)
    model.fit(np.concatenate(rows), np.concatenate(labels), sample_weight=weight / weight.mean())
    return PixelClassifier(model, num_classes)
