"""Check the pictures of records: sizes, modes, constant ones, copies, and pictures that are nearly the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_transfer.data.audit_duplicates import NearDuplicates, duplicate_findings
from lightning_transfer.data.image_facts import ImageFacts, file_keys
from lightning_transfer.data.image_neighbours import find_similar
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.types import Finding, Record

__all__ = ["image_findings"]

_MAX_ENLARGED = 2.0
_MAX_PADDED = 0.5


def image_findings(
    records: Sequence[Record],
    facts: Sequence[ImageFacts],
    preprocessing: Mapping[str, Any] | None = None,
    *,
    near: bool = True,
    progress: Progress = quiet,
) -> list[Finding]:
    """Return what is to be said of pictures; none is opened but possible copies, to compare their bytes.

    Args:
        records: With splits, labels, and pictures as input.
        facts: Of each record.
        preprocessing: Plain values of an `ImagePreprocessing`, for what becomes of their sizes; None: unknown.
        near: Whether to look for pictures that are nearly the same.
        progress: Makes the bar.

    Returns:
        ``image-sizes``, ``image-statistics``, ``small-images``, ``padded-images``, ``mixed-modes``,
        ``constant-images``, and what `duplicate_findings` and `NearDuplicates` say.
    """
    if not records:
        return []
    findings = [_sizes(facts), _statistics(facts)]
    findings += _frame(records, facts, preprocessing or {})
    findings += _modes(records, facts)
    constant = [record.id for record, found in zip(records, facts, strict=True) if found.is_constant]
    if constant:
        findings.append(
            Finding(
                "constant-images",
                "warning",
                f"{len(constant)} images have one colour only: {listing(constant)}.",
                len(constant),
                tuple(constant[:MAX_EXAMPLES]),
                "Look at them: a camera that failed, or a file that was not written to its end.",
            )
        )
    keys = file_keys([record.input for record in records], facts)
    findings += duplicate_findings(records, keys, "file")
    if near:
        pairs = NearDuplicates(records, keys, "images")
        thumbnails = np.stack([found.thumbnail for found in facts])
        aspects = np.array([found.width / found.height for found in facts])
        with progress("Near-duplicates", 7 * len(records)) as bar:
            for one, other, similarity in find_similar(thumbnails, aspects, pairs.wanted, bar.update):
                pairs.add(one, other, similarity)
        findings += pairs.findings()
    return findings


def _sizes(facts: Sequence[ImageFacts]) -> Finding:
    heights, widths = np.array([f.height for f in facts]), np.array([f.width for f in facts])
    sizes = Counter(zip(heights.tolist(), widths.tolist(), strict=True))
    (height, width), most = sizes.most_common(1)[0]
    ratios = widths / heights
    return Finding(
        "image-sizes",
        "note",
        f"{len(facts)} images of {len(sizes)} size{'s' * (len(sizes) > 1)}, most frequent {height} x {width} (height x"
        f" width, {most / len(facts):.0%}); heights {heights.min()} to {heights.max()}, widths {widths.min()} to"
        f" {widths.max()}, width by height {ratios.min():.2f} to {ratios.max():.2f}.",
        len(facts),
    )


def _statistics(facts: Sequence[ImageFacts]) -> Finding:
    """Say how bright pictures are, and how much of that differs within and between them."""
    grey = np.stack([found.thumbnail for found in facts]).astype(np.float32).reshape(len(facts), -1) / 255.0
    means = grey.mean(axis=1)
    return Finding(
        "image-statistics",
        "note",
        f"Mean grey value {means.mean():.2f} of 1 (from image to image {means.min():.2f} to {means.max():.2f}),"
        f" standard deviation within images {grey.std(axis=1).mean():.2f} at {facts[0].thumbnail.shape[0]} x"
        f" {facts[0].thumbnail.shape[1]} pixels.",
        len(facts),
    )


def _frame(records: Sequence[Record], facts: Sequence[ImageFacts], preprocessing: Mapping[str, Any]) -> list[Finding]:
    """Say which pictures are enlarged for the network, and which fill little of its frame."""
    size, tiling = preprocessing.get("size"), preprocessing.get("tiling")
    if not size or tiling:
        return []
    scales = np.array([min(size[0] / found.height, size[1] / found.width) for found in facts])
    filled = np.array([f.height * f.width for f in facts]) * scales**2 / (size[0] * size[1])
    findings = []
    small = [record.id for record, scale in zip(records, scales, strict=True) if scale > 1]
    if small:
        # Enlarging adds no detail: it costs time, and textures of another scale than the pretraining's.
        findings.append(
            Finding(
                "small-images",
                "warning" if np.median(scales) > _MAX_ENLARGED else "note",
                f"{len(small)} of {len(records)} images are smaller than the network's input of {size[0]} x {size[1]}"
                f" pixels, and enlarged up to {scales.max():.1f} times (median of all {np.median(scales):.1f}).",
                len(small),
                tuple(small[:MAX_EXAMPLES]),
                "A smaller `data.image_size` is faster and loses nothing, if the backbone takes it.",
            )
        )
    padded = [record.id for record, share in zip(records, filled, strict=True) if share < 1 - _MAX_PADDED]
    if padded and preprocessing.get("pad") != "none":
        findings.append(
            Finding(
                "padded-images",
                "note",
                f"{len(padded)} of {len(records)} images are so long that they fill less than half of the network's"
                " input; the rest is padding.",
                len(padded),
                tuple(padded[:MAX_EXAMPLES]),
                "Choose an `data.image_size` of their proportions, or cut them into tiles (`data.tile_size`).",
            )
        )
    return findings


def _modes(records: Sequence[Record], facts: Sequence[ImageFacts]) -> list[Finding]:
    """Say that pictures are of several kinds, above all where the kind tells the class."""
    members: defaultdict[str, list[Record]] = defaultdict(list)
    for record, found in zip(records, facts, strict=True):
        members[found.mode].append(record)
    if len(members) < 2:
        return []
    counts = ", ".join(f"{mode} {len(rows)}" for mode, rows in sorted(members.items()))
    labels = Counter(record.label for record in records)
    by_mode = sum(Counter(row.label for row in rows).most_common(1)[0][1] for rows in members.values())
    wrong = len(records) - labels.most_common(1)[0][1]
    tells = wrong > 0 and by_mode - labels.most_common(1)[0][1] > 0.5 * wrong
    which = (
        "; ".join(
            f"{mode}: {listing((f'{label} {n}' for label, n in Counter(row.label for row in rows).most_common()), 3)}"
            for mode, rows in sorted(members.items())
        )
        if tells
        else ""
    )
    rarest = min(members.values(), key=len)
    return [
        Finding(
            "mixed-modes",
            "warning",
            f"The images are of {len(members)} kinds ({counts})."
            + (f" The kind tells the class ({which}), and the model may learn that alone." if tells else ""),
            len(records) - max(len(rows) for rows in members.values()),
            tuple(row.id for row in rarest[:MAX_EXAMPLES]),
            "Save all images the same way, as new ones will be.",
        )
    ]
