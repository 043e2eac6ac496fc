"""Check the texts of records: lengths, copies, and texts that are nearly the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np

from lightning_transfer.data.audit_duplicates import NearDuplicates, duplicate_findings
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.types import Finding, Record

__all__ = ["MIN_JACCARD", "normalise_text", "text_findings"]

MIN_JACCARD = 0.8
"""Share of common runs of four letters from which two texts are nearly the same: one word in eight may differ."""

_RUN = 4
_LETTERS = 20_000  # of a text that are compared: what is the same so far is the same
# 21 bands of 6: a pair of similarity 0.8 is missed once in 500 times, and one of 0.5 compared in vain once in four.
_BANDS, _ROWS = 21, 6
_PART = 2_000  # texts whose signatures are made at once


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


def normalise_text(text: str) -> str:
    """Return a text without case, and with one space for all spaces and signs in a row.

    Example:
        >>> normalise_text("  What's the TOP-UP limit? ")
        'what s the top up limit'
    """
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


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
        from datasketch import MinHash, MinHashLSH
    except ImportError:
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
            members.setdefault(text[:_LETTERS], []).append(place)
    different = list(members)
    index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    with progress("Near-duplicates", len(different)) as bar:
        for start in range(0, len(different), _PART):
            part = different[start : start + _PART]
            signatures = MinHash.bulk([[run.encode() for run in _runs(text)] for text in part], num_perm=_BANDS * _ROWS)
            for place, (text, signature) in enumerate(zip(part, signatures, strict=True), start=start):
                own = _runs(text)
                for candidate in index.query(signature):
                    other = _runs(different[candidate])
                    similarity = len(own & other) / len(own | other)
                    if similarity >= MIN_JACCARD:
                        _add(pairs, members[different[candidate]], members[text], similarity)
                index.insert(place, signature, check_duplication=False)
            bar.update(len(part))
    return pairs.findings()


def _runs(text: str) -> set[str]:
    return {text[start : start + _RUN] for start in range(max(1, len(text) - _RUN + 1))}


def _add(pairs: NearDuplicates, some: Sequence[int], others: Sequence[int], similarity: float) -> None:
    """Note every pair of records of two texts."""
    one = np.repeat(np.array(some, dtype=np.int64), len(others))
    other = np.tile(np.array(others, dtype=np.int64), len(some))
    pairs.add(one, other, np.full(len(one), similarity))
