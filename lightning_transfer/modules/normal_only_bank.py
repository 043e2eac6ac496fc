"""The memory of normal patches: distances to it, an image's score, and how it compares with those of good parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FENCE", "MemoryBank"]

FENCE = 3.5
"""Robust deviations above the median past which a value is an outlier (Iglewicz and Hoaglin 1993)."""

# Numbers in one block of distances: 64 MB of float32.
_BLOCK = 2**24
# A distance of 0, as of a repeated image, has no logarithm.
_TINY = 1e-6


class MemoryBank(nn.Module):
    """Patches of good parts; what is far from all of them is an anomaly (Roth et al. 2022, arXiv 2106.08265).

    It is empty until `fill`; a state with any number of patches loads into it.

    Args:
        num_neighbours: Normal patches around the nearest one that weigh an image's score (equation 7 of the paper);
            0 takes the plain distance.

    Attributes:
        patches: ``(M, D)`` float32.
        location: Median of the logarithm of good images' scores.
        scale: Their robust deviation.
        in_blocks: Compute distances in blocks of bounded memory; False takes all at once, as a traced graph needs, in
            which the number of patches is not known.

    Example:
        >>> bank = MemoryBank(num_neighbours=0)
        >>> bank.fill(torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
        >>> scores, grid = bank(torch.tensor([[4.0, 0.0]]).reshape(1, 2, 1, 1))
        >>> scores, grid.shape
        (tensor([1.]), torch.Size([1, 1, 1]))
    """

    patches: Tensor
    location: Tensor
    scale: Tensor

    def __init__(self, num_neighbours: int = 9) -> None:
        super().__init__()
        if num_neighbours < 0 or num_neighbours == 1:
            raise ValueError(
                f"Expected `num_neighbours` of 0 or at least 2, got {num_neighbours}. 9 is usual; with 0 the score is "
                "the plain distance, and a single neighbour would make every score 0."
            )
        self.num_neighbours = num_neighbours
        self.in_blocks = True
        self.register_buffer("patches", torch.empty(0, 0))
        self.register_buffer("location", torch.tensor(0.0))
        self.register_buffer("scale", torch.tensor(1.0))

    def __len__(self) -> int:
        return len(self.patches)

    def fill(self, patches: Tensor) -> None:
        """Take the patches ``(M, D)`` to remember."""
        self.patches = patches.detach().float().to(self.patches.device)

    def empty(self) -> None:
        """Forget everything."""
        self.fill(torch.empty(0, 0))
        self.standardise(torch.empty(0))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score images by their patches ``(N, D, h, w)``.

        Returns:
            Scores ``(N,)``, and the distance of each patch to the nearest normal one ``(N, h, w)``.
        """
        images, _, height, width = features.shape
        rows = features.flatten(2).transpose(1, 2)
        distance, nearest = self.nearest(rows.flatten(0, 1))
        distance, nearest = distance.reshape(images, -1), nearest.reshape(images, -1)
        worst, place = distance.max(dim=1)
        each = torch.arange(images, device=rows.device)
        scores = self._weighted(rows[each, place], worst, nearest[each, place], None)
        return scores, distance.reshape(images, height, width)

    def logits(self, scores: Tensor) -> Tensor:
        """Return the log-odds of a defect ``(N, 1)``: rising with the score, 0 where good images would be outliers.

        The logarithm of the score, less the median of good images, in robust deviations, less `FENCE`.
        """
        log = scores.clamp_min(_TINY).log()
        return ((log - self.location) / self.scale - FENCE)[:, None]

    def standardise(self, scores: Tensor) -> None:
        """Learn from the scores ``(N,)`` of good images, each left out, what is usual; without any, nothing is."""
        log = scores.double().clamp_min(_TINY).log()
        location, scale = torch.tensor(0.0), torch.tensor(1.0)
        if len(log):
            location = log.quantile(0.5)
            deviation = 1.4826 * (log - location).abs().quantile(0.5)  # of a normal law, the standard deviation
            # Over half of the scores may be equal; then the ordinary deviation speaks.
            spread = deviation if deviation > 0 else log.std(correction=0)
            scale = spread if spread > 0 else scale
        self.location, self.scale = location.to(self.location), scale.to(self.scale)

    def left_out_scores(self, patches: Tensor, images: Tensor, groups: Tensor, groups_of_bank: Tensor) -> Tensor:
        """Score images as if no patch of their own group were remembered.

        Images of one part resemble each other: a defect would find itself on the part's next photo, so the whole group
        is left out.

        Args:
            patches: ``(P, D)``.
            images: Image of each patch, ``(P,)``, in ``[0, number of images)``.
            groups: Group of each image.
            groups_of_bank: Group of each remembered patch, ``(M,)``.

        Returns:
            Score of each image; NaN without patches, or where nothing else is remembered.
        """
        distance, nearest = self.nearest(patches, groups[images], groups_of_bank)
        scores = torch.full((len(groups),), torch.nan)
        for image in sorted(set(images.tolist())):
            rows = (images == image).nonzero()[:, 0]
            place = rows[distance[rows].argmax()]
            if torch.isfinite(distance[place]):
                allowed = (groups_of_bank != groups[image])[None]
                one = slice(int(place), int(place) + 1)
                weighted = self._weighted(patches[one].to(self.patches), distance[one], nearest[one], allowed)
                scores[image] = weighted[0].cpu()
        return scores

    def nearest(
        self, patches: Tensor, own: Tensor | None = None, own_of_bank: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the distance of each patch to the nearest remembered one, and which it is, both ``(P,)``.

        Args:
            patches: ``(P, D)``.
            own: Group of each patch; remembered patches of the same group do not count.
            own_of_bank: Group of each remembered patch.
        """
        bank = self.patches
        if not len(bank):
            raise ValueError("The memory bank is empty: nothing was trained yet.")
        if not self.in_blocks:
            return self._nearest(patches, own, own_of_bank)
        distances, places = [], []
        size = max(1, _BLOCK // len(bank))
        for start in range(0, len(patches), size):
            groups = None if own is None else own[start : start + size]
            distance, place = self._nearest(patches[start : start + size], groups, own_of_bank)
            distances.append(distance)
            places.append(place)
        return torch.cat(distances), torch.cat(places)

    def _nearest(self, patches: Tensor, own: Tensor | None, own_of_bank: Tensor | None) -> tuple[Tensor, Tensor]:
        """Do what `nearest` does, in one block."""
        bank = self.patches
        part = patches.to(bank)
        ranks = bank.square().sum(dim=1) - 2.0 * (part @ bank.T)
        if own is not None and own_of_bank is not None:
            same = own[:, None].to(bank.device) == own_of_bank.to(bank.device)
            ranks = ranks.masked_fill(same, torch.inf)
        least, place = ranks.min(dim=1)
        # By difference: the shorter way above loses digits where two patches are nearly alike.
        exact = (part - bank[place]).norm(dim=1)
        return torch.where(torch.isfinite(least), exact, torch.inf), place

    def _weighted(self, patches: Tensor, distance: Tensor, nearest: Tensor, allowed: Tensor | None) -> Tensor:
        """Weigh distances ``(N,)`` of patches ``(N, D)`` up where their nearest patch is itself a rare one."""
        count = min(self.num_neighbours, len(self.patches))
        if count < 2:
            return distance
        # By products whatever the batch's size, on which torch's own choice depends; it only ranks.
        around = torch.cdist(self.patches[nearest], self.patches, compute_mode="use_mm_for_euclid_dist")
        around.scatter_(1, nearest[:, None], -1.0)  # it belongs to its own neighbourhood, whatever rounding says
        if allowed is not None:
            around = around.masked_fill(~allowed.to(around.device), torch.inf)
        found = around.topk(count, largest=False)
        apart = (patches[:, None] - self.patches[found.indices]).norm(dim=2)
        counted = torch.isfinite(found.values)
        total = apart.masked_fill(~counted, -torch.inf).logsumexp(dim=1)
        weight = (1.0 - (distance - total).exp()).clamp_min(0.0)
        return torch.where(counted.sum(dim=1) > 1, weight * distance, distance)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        """Make room for as many patches as the state has."""
        stored = state_dict.get(f"{prefix}patches")
        if isinstance(stored, Tensor) and stored.shape != self.patches.shape:
            self.patches = stored.new_empty(stored.shape, device=self.patches.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
