"""Find texts that are copies of others, or nearly so."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import DataError
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record

__all__ = ["COMPARED_LETTERS", "MIN_JACCARD", "Copies", "TextIndex", "drop_copies", "normalise_text"]

MIN_JACCARD = 0.8
"""Share of common runs of four letters from which two texts are nearly the same: one word in eight may differ."""

COMPARED_LETTERS = 20_000
"""Of a text that are compared: what is the same so far is the same."""

_RUN = 4
# 21 bands of 6: a pair of similarity 0.8 is missed once in 500 times, and one of 0.5 compared in vain once in four.
_BANDS, _ROWS = 21, 6
_PART = 2_000  # texts whose signatures are made at once


def normalise_text(text: str) -> str:
    """Return a text without case, and with one space for all spaces and signs in a row.

    Example:
        >>> normalise_text("  What's the TOP-UP limit? ")
        'what s the top up limit'
    """
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


class TextIndex:
    """Texts to compare others with, by the Jaccard similarity of their runs of four letters.

    Candidates come from MinHash signatures (Broder 1997; datasketch), whose cost grows with the number of texts; each
    is then compared exactly, so that none is alike by chance.

    Raises:
        DataError: If datasketch is not installed.

    Example:
        >>> index = TextIndex()
        >>> for place, text, signature in index.sign(["the lamp does not light up", "the lamp does not light up!"]):
        ...     print([(other, round(alike, 2)) for other, alike in index.query(text, signature)])
        ...     index.add(place, text, signature)
        []
        [(0, 0.96)]
    """

    def __init__(self) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise DataError(
                "Texts that are nearly the same are found with datasketch, and it is not installed. Run `pip install"
                " datasketch`."
            ) from error
        self._minhash = MinHash
        self._index: Any = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
        self._texts: dict[int, str] = {}

    def sign(self, texts: Sequence[str]) -> Iterator[tuple[int, str, Any]]:
        """Return place, compared part and signature of each text; made in parts, for speed and little memory."""
        for start in range(0, len(texts), _PART):
            part = [text[:COMPARED_LETTERS] for text in texts[start : start + _PART]]
            runs = [[run.encode() for run in _runs(text)] for text in part]
            yield from zip(
                range(start, start + len(part)),
                part,
                self._minhash.bulk(runs, num_perm=_BANDS * _ROWS),
                strict=True,
            )

    def query(self, text: str, signature: Any) -> list[tuple[int, float]]:  # noqa: ANN401 - a signature
        """Return the places of added texts that are nearly the same, in their order, and how similar each is."""
        own = _runs(text)
        found = []
        for place in sorted(self._index.query(signature)):
            other = _runs(self._texts[place])
            similarity = len(own & other) / len(own | other)
            if similarity >= MIN_JACCARD:
                found.append((place, similarity))
        return found

    def add(self, place: int, text: str, signature: Any) -> None:  # noqa: ANN401 - a signature
        """Remember a text under a place of its own."""
        self._texts[place] = text
        self._index.insert(place, signature, check_duplication=False)


def _runs(text: str) -> set[str]:
    return {text[start : start + _RUN] for start in range(max(1, len(text) - _RUN + 1))}


@dataclass(frozen=True)
class Copies:
    """What `drop_copies` keeps and removes.

    Attributes:
        records: Kept, in their order.
        removed: Removed, in their order.
        originals: Id of a removed record -> id of the kept one that it is a copy of, and their similarity.
    """

    records: list[Record]
    removed: list[Record]
    originals: dict[str, tuple[str, float]]

    def findings(self) -> list[Finding]:
        """Return ``copies-removed``, and ``copies-with-other-label`` where a copy has another label."""
        if not self.removed:
            return []
        kept = {record.id: record for record in self.records}
        pairs = [(record, kept[self.originals[record.id][0]]) for record in self.removed]
        exact = sum(similarity == 1.0 for _, similarity in self.originals.values())
        clashing = [
            pair for pair in pairs if None not in (pair[0].label, pair[1].label) and pair[0].label != pair[1].label
        ]
        found = [
            Finding(
                "copies-removed",
                "note",
                f"{len(self.removed)} of {len(self.removed) + len(self.records)} texts are removed: {exact} copies and"
                f" {len(self.removed) - exact} nearly the same as another one.",
                len(self.removed),
                tuple(f"{one.id} | {other.id} (similarity {self._like(one)})" for one, other in pairs[:MAX_EXAMPLES]),
            )
        ]
        if clashing:
            found.append(
                Finding(
                    "copies-with-other-label",
                    "warning",
                    f"{len(clashing)} of the removed texts have another label than the one that is kept: one of the two"
                    " is wrong.",
                    len(clashing),
                    tuple(
                        f"{one.id} `{one.label}` | {other.id} `{other.label}` (similarity {self._like(one)})"
                        for one, other in clashing[:MAX_EXAMPLES]
                    ),
                    "Look which label is right.",
                )
            )
        return found

    def _like(self, record: Record) -> str:
        return f"{self.originals[record.id][1]:.2f}"


def drop_copies(records: Sequence[Record], *, near: bool = True) -> Copies:
    """Keep one of the records whose texts are the same, or nearly so; before they are split.

    Texts are the same if `normalise_text` makes them equal, and nearly the same from a Jaccard similarity of 0.8 of
    their runs of four letters on. Of copies the one in the latest split that the data name is kept (``test`` before
    ``train``), else one with a label, else the first. Texts of signs alone are copies of none.

    Args:
        records: With texts as inputs, and unique ids.
        near: False removes exact copies only.

    Raises:
        DataError: If datasketch is not installed, and ``near``.

    Example:
        >>> rows = [Record("1", "Reset my PIN!", "login"), Record("2", "reset my pin", "login"), Record("3", "hi", "a")]
        >>> copies = drop_copies(rows, near=False)
        >>> [record.id for record in copies.records], copies.originals
        (['1', '3'], {'2': ('1', 1.0)})
    """
    order = sorted(
        range(len(records)),
        key=lambda place: (-_rank(records[place]), records[place].label is None, place),
    )
    first: dict[str, int] = {}
    originals: dict[str, tuple[str, float]] = {}
    different: list[tuple[int, str]] = []
    for place in order:
        text = normalise_text(records[place].input)
        if text and text in first:
            originals[records[place].id] = (records[first[text]].id, 1.0)
        elif text:
            first[text] = place
            different.append((place, text))
    if near:
        followers: defaultdict[str, list[str]] = defaultdict(list)
        for copy, (original, _) in originals.items():
            followers[original].append(copy)
        index = TextIndex()
        for number, text, signature in index.sign([text for _, text in different]):
            alike = index.query(text, signature)
            if not alike:
                index.add(number, text, signature)
                continue
            best, similarity = max(alike, key=lambda item: item[1])
            name, kept = records[different[number][0]].id, records[different[best][0]].id
            for copy in (name, *followers[name]):
                originals[copy] = (kept, similarity)
    return Copies(
        [record for record in records if record.id not in originals],
        [record for record in records if record.id in originals],
        originals,
    )


def _rank(record: Record) -> int:
    return -1 if record.split in (None, "predict") else SPLITS.index(record.split)
