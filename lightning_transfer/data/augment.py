"""Change training images at random, only in the ways that the user declares harmless."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_transfer.errors import closest

__all__ = ["AUGMENTATIONS", "Augmentations"]

AUGMENTATIONS = ("horizontal_flip", "vertical_flip", "rotate_90", "brightness")

_MAX_BRIGHTNESS = 0.2


class Augmentations:
    """Apply named random changes to a normalised image tensor.

    None is on by default: which symmetries leave a label true is known to the user alone (a flipped ``6`` is no
    ``6``, a flipped heart is a disease).

    Args:
        names: ``horizontal_flip`` and ``vertical_flip`` each with probability one half; ``rotate_90`` by 0, 90, 180
            or 270 degrees (0 or 180 where height and width differ); ``brightness`` adds one number in
            ``[-0.2, 0.2]``, in units of the normalisation's std, padding included.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> flip = Augmentations(["horizontal_flip"])
        >>> flip(torch.tensor([[[1.0, 2.0]]]), torch.Generator().manual_seed(0)).shape
        torch.Size([1, 1, 2])
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        for name in names:
            if name not in AUGMENTATIONS:
                known = ", ".join(AUGMENTATIONS)
                raise ValueError(f"Unknown augmentation `{name}`.{closest(name, AUGMENTATIONS)} Known: {known}.")
        self.names = tuple(names)

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed image ``(C, H, W)``; the same generator state gives the same change."""
        for name in self.names:
            if name == "brightness":
                image = image + (2 * float(torch.rand((), generator=generator)) - 1) * _MAX_BRIGHTNESS
                continue
            turns = int(torch.randint(4, (), generator=generator))
            if name == "rotate_90":
                square = image.shape[-1] == image.shape[-2]
                image = torch.rot90(image, turns if square else 2 * (turns % 2), dims=(-2, -1))
            elif turns % 2:
                image = image.flip(-1 if name == "horizontal_flip" else -2)
        return image.contiguous()
