"""The errors to look at first: those that the model was surest of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import usable_text
from lightning_transfer.scans import ImagePart

__all__ = ["KINDS", "DataFiles", "WorstError", "worst_errors"]

KINDS = {
    "escapes": "Let through, the surest first",
    "false_rejects": "Rejected without reason, the surest first",
    "confusions": "Taken for another class, the surest first",
}
"""What a reader should read for each kind of error."""

_UNDECIDED = frozenset({"", "undefined", "unreadable"})


@dataclass(frozen=True)
class WorstError:
    """A record that was decided wrongly.

    Attributes:
        kind: One of `KINDS`.
        id: Of the record.
        path: Its file or its text, as ``predictions.csv`` has it.
        label: What it is.
        decision: What it was taken for.
        confidence: Probability of what it was taken for; None if unknown.
        score: Probability of anything but the negative class.
        explained: The class whose evidence is worth a look: the true one of what was let through, else the decided one.
        nearest_path: The training record that is most alike.
        nearest_label: Its class.
        nearest_distance: One minus the cosine of the features.
    """

    kind: str
    id: str
    path: str
    label: str
    decision: str
    confidence: float | None
    score: float | None
    explained: str
    nearest_path: str = ""
    nearest_label: str = ""
    nearest_distance: float | None = None


def worst_errors(
    rows: Sequence[Mapping[str, str]], negative_class: str | None, limit: int = 8
) -> dict[str, list[WorstError]]:
    """Choose the errors that the model was surest of, of each kind.

    What was let through: the lowest scores. What was rejected without reason: the highest. Taken for another class:
    the highest probability of that class.

    Args:
        rows: Of ``predictions.csv``.
        negative_class: The class that means "nothing found"; without one, all errors are confusions.
        limit: Errors of each kind.

    Example:
        >>> rows = [{"id": "a", "label": "pit", "decision": "good", "score": "0.1"},
        ...         {"id": "b", "label": "pit", "decision": "good", "score": "0.01"},
        ...         {"id": "c", "label": "good", "decision": "good", "score": "0.2"}]
        >>> [error.id for error in worst_errors(rows, "good")["escapes"]]
        ['b', 'a']
    """
    found: dict[str, list[WorstError]] = {kind: [] for kind in KINDS}
    for row in rows:
        label, decision = row.get("label", ""), row.get("decision", "")
        if not label or decision in _UNDECIDED or label == decision:
            continue
        kind = "confusions"
        if negative_class is not None and negative_class in (label, decision):
            kind = "escapes" if decision == negative_class else "false_rejects"
        found[kind].append(
            WorstError(
                kind=kind,
                id=row.get("id", ""),
                path=row.get("path", ""),
                label=label,
                decision=decision,
                confidence=usable_text(row.get(f"probability_{decision}", "")),
                score=usable_text(row.get("score", "")),
                explained=label if kind == "escapes" else decision,
                nearest_path=row.get("nearest_path", ""),
                nearest_label=row.get("nearest_label", ""),
                nearest_distance=usable_text(row.get("nearest_distance", "")),
            )
        )
    return {kind: sorted(errors, key=_surest)[:limit] for kind, errors in found.items()}


def _surest(error: WorstError) -> tuple[float, str]:
    if error.kind == "escapes":
        return (2.0 if error.score is None else error.score), error.id
    sure = error.score if error.kind == "false_rejects" else error.confidence
    return -(-1.0 if sure is None else sure), error.id


class DataFiles:
    """Find the files that a run read, and no others: only below the data root that its config names.

    Args:
        run: Its config says the root, relative to the folder in which the run was started.
        data_root: Where the data are now, if they moved.
        sources: Id -> where the picture is, for runs whose tables name records by pseudonyms.

    Attributes:
        root: The folder, links resolved; None where there is none.
        reason: Why there is none.
    """

    def __init__(
        self, run: RunFiles, data_root: str | Path | None = None, sources: Mapping[str, ImagePart] | None = None
    ) -> None:
        self._sources = sources or {}
        self.root: Path | None = None
        self.reason = ""
        named = str(data_root) if data_root is not None else run.section("data").get("root")
        if not isinstance(named, str) or not named:
            self.reason = "the config names no `data.root`"
            return
        folder = Path(named).expanduser()
        if not folder.is_dir():
            self.reason = f"the data root `{named}` is not found from here; give `--data_root DIR`"
            return
        self.root = folder.resolve()

    def find(self, path: str, key: str = "", sibling: tuple[str, str] | None = None) -> Path | ImagePart | None:
        """Return a file below the root, or part of one, or None.

        Args:
            path: As the predictions have it.
            key: Id of the record; for files it is the path relative to the root, which holds when the data moved.
            sibling: Path and id of a record whose root was the same: says what ``path`` is relative to.
        """
        for name in (path, key):
            if name in self._sources:
                return self._sources[name]
        if self.root is None:
            return None
        options = [path, key]
        if sibling is not None and sibling[1] and sibling[0].endswith(sibling[1]):
            before = sibling[0][: -len(sibling[1])]
            options.append(path.removeprefix(before))
        for option in options:
            found = _inside(self.root, option)
            if found is not None:
                return found
        return None


def _inside(root: Path, name: str) -> Path | None:
    """Return the file that a name means below the root; None where it leaves it or there is none."""
    if not name:
        return None
    try:
        full = (root / name).resolve()
        return full if full.is_relative_to(root) and full.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None
