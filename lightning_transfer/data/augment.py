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
        return self._change([image], generator)[0]

    def pair(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an image ``(C, H, W)`` and its mask ``(H, W)``, moved together.

        The image is that of a call with the same generator state; what changes brightness leaves the mask.

        Example:
            >>> both = Augmentations(["rotate_90"]).pair(torch.eye(2)[None], torch.eye(2), torch.Generator())
            >>> bool((both[0][0] == both[1]).all())
            True
        """
        image, mask = self._change([image, mask], generator)
        return image, mask

    def _change(self, items: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Change the first one in every way, and move the others with it."""
        for name in self.names:
            if name == "brightness":
                items[0] = items[0] + (2 * float(torch.rand((), generator=generator)) - 1) * _MAX_BRIGHTNESS
                continue
            turns = int(torch.randint(4, (), generator=generator))
            if name == "rotate_90":
                square = items[0].shape[-1] == items[0].shape[-2]
                angle = turns if square else 2 * (turns % 2)
                items = [torch.rot90(item, angle, dims=(-2, -1)) for item in items]
            elif turns % 2:
                items = [item.flip(-1 if name == "horizontal_flip" else -2) for item in items]
        return [item.contiguous() for item in items]
