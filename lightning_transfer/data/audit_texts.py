"""Check the texts of records: lengths, copies, and texts that are nearly the same."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from lightning_transfer.data.audit_duplicates import NearDuplicates, duplicate_findings
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.data.text_neighbours import COMPARED_LETTERS, TextIndex, normalise_text
from lightning_transfer.errors import DataError
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["text_findings"]


def text_findings(records: Sequence[Record], *, near: bool = True, progress: Progress = quiet) -> list[Finding]:
    """Return what is to be said of texts.

    Copies are texts that `normalise_text` makes equal. Texts are nearly the same where the Jaccard similarity of their
    runs of four letters is at least 0.8. Candidates come from MinHash signatures (Broder 1997; datasketch), whose cost
    grows with the number of texts, where that of TF-IDF over all pairs grows with its square; each is then compared
    exactly, so that none is reported by chance.

    Args:
        records: With splits, labels, and a text as input.
        near: Whether to look for texts that are nearly the same.
        progress: Makes the bar.

    Returns:
        ``text-lengths``, ``empty-text``, what `duplicate_findings` and `NearDuplicates` say, and
        ``near-duplicates-not-searched`` where datasketch is not installed.

    Example:
        >>> rows = [Record("1", "Reset my PIN!", "a", "train"), Record("2", "reset my pin", "a", "test")]
        >>> [finding.code for finding in text_findings(rows, near=False)]
        ['text-lengths', 'duplicates-across-splits']
    """
    if not records:
        return []
    texts = [normalise_text(record.input) for record in records]
    keys: list[Hashable | None] = [text or None for text in texts]
    findings = [_lengths(records)]
    # A text of signs alone is not empty, but nothing is left of it to compare.
    empty = [record.id for record in records if not record.input.strip()]
    if empty:
        findings.append(
            Finding(
                "empty-text",
                "error",
                f"{len(empty)} texts are empty.",
                len(empty),
                tuple(empty[:MAX_EXAMPLES]),
                "Remove these records, or fill them.",
            )
        )
    findings += duplicate_findings(records, keys, "text")
    if near:
        findings += _near(records, texts, keys, progress)
    return findings


def _lengths(records: Sequence[Record]) -> Finding:
    words = np.array([len(record.input.split()) for record in records])
    letters = np.array([len(record.input) for record in records])
    return Finding(
        "text-lengths",
        "note",
        f"{len(records)} texts of {words.min()} to {words.max()} words (median {np.median(words):.0f}, 95% have at most"
        f" {np.percentile(words, 95):.0f}), {letters.min()} to {letters.max()} letters.",
        len(records),
    )


def _near(
    records: Sequence[Record], texts: Sequence[str], keys: Sequence[Hashable | None], progress: Progress
) -> list[Finding]:
    """Compare what MinHash takes for alike; each different text once, with the records that have it."""
    try:
        index = TextIndex()
    except DataError:
        return [
            Finding(
                "near-duplicates-not-searched",
                "note",
                "Texts that are nearly the same were not searched for: datasketch is not installed.",
                len(records),
                (),
                "`pip install datasketch`.",
            )
        ]
    pairs = NearDuplicates(records, keys, "texts")
    members: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        if text:
            members.setdefault(text[:COMPARED_LETTERS], []).append(place)
    different = list(members)
    with progress("Near-duplicates", len(different)) as bar:
        for place, text, signature in index.sign(different):
            for other, similarity in index.query(text, signature):
                _add(pairs, members[different[other]], members[text], similarity)
            index.add(place, text, signature)
            bar.update(1)
    return pairs.findings()


def _add(pairs: NearDuplicates, some: Sequence[int], others: Sequence[int], similarity: float) -> None:
    """Note every pair of records of two texts."""
    one = np.repeat(np.array(some, dtype=np.int64), len(others))
    other = np.tile(np.array(others, dtype=np.int64), len(some))
    pairs.add(one, other, np.full(len(one), similarity))
