"""Compare what happens to an input with what the backbone was pretrained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning_transfer.findings import Finding
from lightning_transfer.types import BackboneCard

__all__ = ["preprocessing_findings"]

# Mean and standard deviation that the field's networks were pretrained with.
_KNOWN = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
_CLOSE = 0.005


def preprocessing_findings(preprocessing: Mapping[str, Any], card: BackboneCard) -> list[Finding]:
    """Return where the preprocessing differs from the backbone's card, or the card from what is plausible.

    Features of a network that sees other numbers than in its pretraining are wrong without any error.

    Args:
        preprocessing: Plain values; those of kind ``image`` and ``scan`` are compared.
        card: Of the backbone.

    Returns:
        ``preprocessing-mismatch``: an error where mean and standard deviation are swapped, or pixels are normalised to
        a range that no network was trained with; a warning where they differ from the card; a note for another size or
        filter, which may be meant.

    Example:
        >>> card = BackboneCard("a", "a", input_size=(1, 8, 8), mean=(0.5,), std=(0.25,))
        >>> values = {"kind": "image", "size": [8, 8], "channels": 1, "mean": [0.25], "std": [0.5]}
        >>> [(finding.severity, finding.advice) for finding in preprocessing_findings(values, card)]
        [('error', 'Swap `mean` and `std`.')]
    """
    if preprocessing.get("kind") not in ("image", "scan"):
        return []
    found = _constants(preprocessing, card)
    if card.input_size is not None:
        channels, *size = card.input_size
        if preprocessing.get("channels") not in (None, channels):
            found.append(_mismatch("error", "channels", preprocessing["channels"], channels, card))
        if list(preprocessing.get("size") or size) != size:
            found.append(_mismatch("note", "size", preprocessing["size"], size, card))
    filters = ("bicubic" if card.interpolation == "bicubic" else "bilinear", preprocessing.get("interpolation"))
    if filters[1] not in (None, filters[0]):
        found.append(_mismatch("note", "interpolation", filters[1], filters[0], card))
    return found


def _constants(preprocessing: Mapping[str, Any], card: BackboneCard) -> list[Finding]:
    """Compare mean and standard deviation with the card's, and the card's with known ones."""
    mean, std = tuple(preprocessing.get("mean") or ()), tuple(preprocessing.get("std") or ())
    if not mean or not std:
        return []
    differs = card.mean is not None and card.std is not None and not (_near(mean, card.mean) and _near(std, card.std))
    if differs and _near(mean, card.std or ()) and _near(std, card.mean or ()):
        return [_swapped(f"those of the card of `{card.name}`", mean, std)]
    for name, (usual_mean, usual_std) in _KNOWN.items():
        if _near(mean, usual_std) and _near(std, usual_mean):
            whose = "the card's" if not differs else "the preprocessing's"
            return [_swapped(f"{name}'s ({whose} values)", mean, std)]
    if max(std) > 1.0 or max(abs(value) for value in mean) > 1.0:
        return [
            Finding(
                "preprocessing-mismatch",
                "error",
                f"`mean` {_text(mean)} and `std` {_text(std)} are not of pixels from 0 to 1.",
                1,
                (),
                "Divide both by 255 in the card, if they are of pixels from 0 to 255.",
            )
        ]
    if differs:
        both = f"`mean` {_text(mean)} and `std` {_text(std)}"
        return [
            Finding(
                "preprocessing-mismatch",
                "warning",
                f"The preprocessing has {both}, the card of `{card.name}` {_text(card.mean or ())} and"
                f" {_text(card.std or ())}.",
                1,
                (),
                "Take the card's values: the pretrained features belong to them.",
            )
        ]
    return []


def _swapped(whose: str, mean: Sequence[float], std: Sequence[float]) -> Finding:
    return Finding(
        "preprocessing-mismatch",
        "error",
        f"`mean` {_text(mean)} and `std` {_text(std)} are {whose}, swapped.",
        1,
        (),
        "Swap `mean` and `std`.",
    )


def _mismatch(severity: Literal["error", "note"], key: str, own: object, wanted: object, card: BackboneCard) -> Finding:
    return Finding(
        "preprocessing-mismatch",
        severity,
        f"The preprocessing has the {key} {own}, the card of `{card.name}` {wanted}.",
        1,
        (),
        "Take the card's, unless the difference is meant.",
    )


def _near(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and all(abs(a - b) <= _CLOSE for a, b in zip(some, others, strict=True))


def _text(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.3g}' for value in values)})"
