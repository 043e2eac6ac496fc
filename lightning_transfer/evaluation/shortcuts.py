"""Can the features tell where a record comes from, and would that alone explain the label?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_transfer import metrics
from lightning_transfer.errors import closest, listing
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.evaluation.scores import decision_score, negative_index
from lightning_transfer.evaluation.shortcut_probe import (
    OTHER,
    common_values,
    grouped_folds,
    predict_from_features,
    predict_from_values,
    within_auroc,
)
from lightning_transfer.evaluation.slice_columns import cut_column
from lightning_transfer.metrics import Interval, Resamples, group_codes, resample
from lightning_transfer.metrics.bootstrap import Float
from lightning_transfer.types import Record, Schema

__all__ = ["MAX_RECORDS", "SHORTCUT_COLUMNS", "Part", "Shortcut", "ShortcutTable", "evaluate_shortcuts"]

SHORTCUT_COLUMNS = ("site", "hospital", "location", "scanner", "view", "sex")
"""Columns that are probed where nothing else is asked for."""

MAX_RECORDS = 5000
"""Of one set of features that the probes see: with more their intervals are narrow anyway."""

MIN_GROUPS = 5
"""Groups that must have a value, and lack it, before the features are asked for it."""

# Of what the finding's AUROC has above one half: from this share on, the column alone is a warning.
_SHARE = 0.5
_NUM_FOLDS = 5
_MOST_VALUES = 20
_MOST_FINDINGS = 20

Part = tuple[Outputs, Sequence[Record]]
"""What was collected of one split, and all records of that split, into which ``index`` points."""


@dataclass(frozen=True)
class Shortcut:
    """How a column and a finding hang together, as one set of features sees them.

    Attributes:
        features: ``frozen`` or ``adapted``.
        column: Such as ``site``.
        finding: The class whose AUROC is meant; ``not <negative class>`` for all others together.
        told: AUROC with which the features tell the column among records that agree in the finding, mean over its
            values, each against the rest. Among all records a column that goes with the finding would be told by it.
        own: AUROC of the finding: of the model for adapted features, of a linear probe for frozen ones.
        within: The same among pairs of the same value of the column.
        lost: ``own`` minus ``within``, paired.
        alone: AUROC of the finding by the column alone.
        explains: Whether the features surely tell the column, and it alone surely predicts the finding, at least half
            as far above chance as ``own``. The second "surely" counts how many columns and findings are looked at.
        values: The column's values that the features were asked for.
    """

    features: str
    column: str
    finding: str
    told: Interval
    own: Interval
    within: Interval
    lost: Interval
    alone: Interval
    explains: bool
    values: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        named = {name: getattr(self, name).to_dict() for name in ("told", "own", "within", "lost", "alone")}
        about = {"features": self.features, "column": self.column, "finding": self.finding}
        return {**about, **named, "explains": self.explains, "values": list(self.values)}


@dataclass(frozen=True)
class ShortcutTable:
    """All columns that were probed.

    Attributes:
        shortcuts: Those that explain a finding first, then by what the column alone says of it.
        left_out: Column -> why it was not probed.
        notes: What bounds the numbers.
    """

    shortcuts: tuple[Shortcut, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "shortcuts": [item.to_dict() for item in self.shortcuts],
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }

    def flat(self) -> dict[str, Interval]:
        """Return the worst finding of each column and set of features by the names of ``metrics.json``."""
        found: dict[str, Interval] = {}
        for item in self.shortcuts:
            name = f"shortcut_{item.column}"
            found.setdefault(f"{name}_told_by_{item.features}", item.told)
            found.setdefault(f"{name}_alone_on_{item.features}", item.alone)
            found.setdefault(f"{name}_within_on_{item.features}", item.within)
        return found


def evaluate_shortcuts(
    views: Mapping[Literal["frozen", "adapted"], Sequence[Part]],
    schema: Schema,
    columns: Literal["auto"] | Sequence[str] = "auto",
    *,
    max_records: int = MAX_RECORDS,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> ShortcutTable:
    """Ask features for columns such as the hospital, and the columns for the label.

    A network that tells hospitals apart scores well on any label whose frequency differs between them, and fails at the
    next hospital (Zech et al. 2018; DeGrave et al. 2021). Three numbers tell: how well a logistic regression on the
    features tells the column, among records that agree in the finding; how well the column alone predicts the finding;
    and the finding's AUROC among pairs of records of the same value, to which the column contributes nothing. All
    scores but the model's own are out of fold, with whole groups held out; a missing value is a value, as it may tell
    the source too. Intervals draw groups; they do not fit the probes anew. Nothing is chosen by it.

    Args:
        views: What the features were collected on. ``frozen``: features before any fine-tuning, of all splits whose
            labels may be read, as no label has formed them. ``adapted``: those of the model, with its logits, on
            records that it was not trained on.
        schema: Task and classes.
        columns: Of ``Record.meta``; ``auto`` takes those of `SHORTCUT_COLUMNS` that there are.
        max_records: With more, whole groups are drawn with the seed until so many are there.
        n_resamples: Of the intervals.
        confidence: Of the intervals.
        seed: Of both draws.
        show_progress: Whether to show a bar.

    Example:
        >>> import torch
        >>> schema = Schema(task="binary", classes=("no", "yes"))
        >>> label = np.arange(200) % 2
        >>> site = np.where(np.arange(200) % 10 == 0, 1 - label, label)  # nine of ten
        >>> records = [Record(id=str(i), input=None, meta={"site": "ab"[s]}) for i, s in enumerate(site)]
        >>> features = torch.tensor(site[:, None] + np.random.default_rng(0).normal(size=(200, 3)) / 9)
        >>> seen = Outputs(torch.zeros(200, 0), features, torch.tensor(label), torch.arange(200))
        >>> found = evaluate_shortcuts({"frozen": [(seen, records)]}, schema).shortcuts[0]
        >>> found.told.value, round(found.alone.value, 2), found.explains
        (1.0, 0.9, True)
    """
    shortcuts: list[Shortcut] = []
    left_out: dict[str, str] = {}
    notes: list[str] = []
    joined = {name: _join(parts, schema, max_records, seed) for name, parts in views.items()}
    chosen = _columns([record for data in joined.values() for record in data.records], columns, left_out)
    with progress("Shortcuts", len(joined) * len(chosen), show_progress) as bar:
        for name, data in joined.items():
            probe = _Probe(name, data, n_resamples, confidence, seed, len(chosen) * len(data.findings))
            notes += data.notes
            for column in chosen:
                found, reason = probe.column(column)
                shortcuts += found
                if reason:
                    left_out[f"{column} ({name} features)"] = reason
                bar.update(1)
    ranked = sorted(shortcuts, key=lambda item: (not item.explains, -(item.alone.value or 0.0)))
    return ShortcutTable(tuple(ranked), left_out, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Data:
    """One set of features, of all splits together.

    Attributes:
        features: ``(N, F)``.
        logits: ``(N, num_logits)``, or ``(N, 0)`` where a probe is to be fitted.
        findings: Name -> labels ``(N,)``: 1, 0, or -1 where unknown; and the model's score, where it has one.
        records: ``(N,)``.
        codes: Group of each.
        notes: What was left out.
    """

    features: NDArray[np.float32]
    findings: Mapping[str, tuple[NDArray[np.int64], Float | None]]
    records: list[Record]
    codes: NDArray[np.int64]
    notes: tuple[str, ...]


def _join(parts: Sequence[Part], schema: Schema, max_records: int, seed: int) -> _Data:
    records = [found[place] for outputs, found in parts for place in outputs.index.tolist()]
    features = np.concatenate([outputs.features.float().numpy() for outputs, _ in parts])
    logits = np.concatenate([outputs.logits.double().numpy() for outputs, _ in parts])
    width = schema.num_classes if schema.task == "multilabel" else 1
    missing = np.nan if schema.task == "multilabel" else -1.0
    target = np.concatenate(
        [
            np.full((len(outputs), width), missing)
            if outputs.target is None
            else outputs.target.double().numpy().reshape(len(outputs), width)
            for outputs, _ in parts
        ]
    )
    notes = []
    codes = group_codes([record.group for record in records])
    usable = np.isfinite(features).all(axis=1)
    rows = np.flatnonzero(usable)
    if len(rows) > max_records:
        order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)[codes]
        rows = np.sort(rows[np.argsort(order[rows], kind="stable")[:max_records]])
        notes.append(f"The probes saw {len(rows)} of {len(records)} records, whole groups drawn at random.")
    findings = _findings(target[rows], logits[rows], schema)
    if len(findings) > _MOST_FINDINGS:
        most = sorted(findings, key=lambda name: -int((findings[name][0] == 1).sum()))[:_MOST_FINDINGS]
        notes.append(f"Only the {_MOST_FINDINGS} most frequent of {len(findings)} classes were probed.")
        findings = {name: findings[name] for name in most}
    kept = [records[row] for row in rows.tolist()]
    return _Data(features[rows], findings, kept, group_codes(codes[rows]), tuple(notes))


def _findings(target: Float, logits: Float, schema: Schema) -> dict[str, tuple[NDArray[np.int64], Float | None]]:
    """Return a label and a score for each thing that is to be found; binary and "anything wrong" are one thing."""
    scored = logits.shape[1] > 0
    if schema.task == "multilabel":
        # An uncertain label may be a probability, which is no answer.
        known = np.where(np.isin(target, (0.0, 1.0)), target, -1).astype(np.int64)
        return {
            name: (known[:, place], logits[:, place] if scored else None) for place, name in enumerate(schema.classes)
        }
    classes = np.where(np.isnan(target[:, 0]), -1, target[:, 0]).astype(np.int64)
    negative = negative_index(schema)
    if negative is not None:
        others = [name for place, name in enumerate(schema.classes) if place != negative]
        name = others[0] if len(others) == 1 else f"not {schema.classes[negative]}"
        score = decision_score(logits, schema, 1.0)[1] if scored else None
        return {name: (np.where(classes < 0, -1, classes != negative).astype(np.int64), score)}
    found = {}
    for place, name in enumerate(schema.classes):
        rest = np.delete(logits, place, axis=1) if scored else logits
        score = logits[:, place] - np.logaddexp.reduce(rest, axis=1) if scored else None
        found[name] = (np.where(classes < 0, -1, classes == place).astype(np.int64), score)
    return found


def _columns(records: Sequence[Record], wanted: Literal["auto"] | Sequence[str], left_out: dict[str, str]) -> list[str]:
    there = sorted({key for record in records for key in record.meta})
    if wanted == "auto":
        return [name for name in SHORTCUT_COLUMNS if name in there]
    for name in wanted:
        if name not in there:
            left_out[name] = f"there is no such column.{closest(name, there)} Columns: {listing(there, 20) or 'none'}"
    return [name for name in dict.fromkeys(wanted) if name in there]


@dataclass
class _Probe:
    """Asks one set of features for one column after another; what a finding scores is computed once."""

    name: str
    data: _Data
    n_resamples: int
    confidence: float
    seed: int
    num_tests: int
    _own: dict[str, tuple[Float, Any] | None] = field(default_factory=dict)
    _divisions: dict[bytes, str] = field(default_factory=dict)

    def column(self, column: str) -> tuple[list[Shortcut], str]:
        """Return what is found of a column, or the reason why it is not probed."""
        values, reason = _values([record.meta.get(column) for record in self.data.records], column)
        if reason:
            return [], reason
        same = self._divisions.setdefault(group_codes(values).tobytes(), column)
        if same != column:
            return [], f"it divides the records as `{same}` does"
        codes = self.data.codes
        asked = common_values(values, codes, MIN_GROUPS, _MOST_VALUES)
        if not asked:
            return [], f"no value is that of at least {MIN_GROUPS} groups, with {MIN_GROUPS} others beside it"
        names = [*asked, OTHER]
        target = np.array([names.index(value) if value in asked else len(asked) for value in values])
        folds = grouped_folds(target, codes, _NUM_FOLDS)
        if folds is None:
            return [], "some fold would be left with one value"
        guesses = predict_from_features(self.data.features, target, len(names), folds)[:, : len(asked)]
        found = [self._finding(column, name, values, guesses, tuple(asked)) for name in self.data.findings]
        return [item for item in found if item is not None], ""

    def _finding(
        self, column: str, name: str, values: Sequence[str], guesses: Float, asked: tuple[str, ...]
    ) -> Shortcut | None:
        prepared = self._score_of(name)
        if prepared is None:
            return None
        score, folds = prepared
        label, _ = self.data.findings[name]
        known = np.flatnonzero(label >= 0)
        positive, codes = label[known] == 1, group_codes(self.data.codes[known])
        own_values = [values[row] for row in known.tolist()]
        _, value_codes = np.unique(np.asarray(own_values, dtype=str), return_inverse=True)
        is_value = [np.array([value == item for value in own_values]) for item in asked]
        by_value = predict_from_values(own_values, positive, codes, folds)
        fold_codes = np.zeros(len(codes), dtype=np.int64)
        for place, (_, held) in enumerate(folds):
            fold_codes[held] = place

        def statistic(weights: Float) -> dict[str, Float]:
            own = metrics.auroc(weights, score, positive)
            within = within_auroc(weights, score, positive, value_codes)
            # Pairs of one fold: a value's rate differs a little between folds, always against the part held out, and
            # records of the same value must tie.
            alone = within_auroc(weights, by_value, positive, fold_codes)
            told = [within_auroc(weights, guesses[known, place], mask, positive) for place, mask in enumerate(is_value)]
            told_mean = metrics.mean_defined(np.stack(told, axis=1))
            return {"told": told_mean, "own": own, "within": within, "alone": alone, "lost": own - within}

        drawn = self._resample(statistic, codes)
        no_pair = f"no value of `{column}` has records of both kinds"
        reasons = {"within": no_pair, "lost": no_pair}
        found = {
            key: drawn.interval(key, confidence=self.confidence, reason=reasons.get(key, "")) for key in drawn.point
        }
        # Of many columns and findings some look confounded by chance (Bonferroni).
        strict = drawn.interval("alone", confidence=1.0 - (1.0 - self.confidence) / self.num_tests)
        explains = _explains(found["told"], found["own"], strict)
        return Shortcut(self.name, column, name, **found, explains=explains, values=asked)

    def _score_of(self, name: str) -> tuple[Float, Any] | None:
        """Return the finding's score of the records whose label is known, and folds of them; None with one class."""
        if name not in self._own:
            self._own[name] = self._make_score(name)
        return self._own[name]

    def _make_score(self, name: str) -> tuple[Float, Any] | None:
        label, score = self.data.findings[name]
        known = np.flatnonzero(label >= 0)
        if len(np.unique(label[known])) < 2:
            return None
        folds = grouped_folds(label[known], group_codes(self.data.codes[known]), _NUM_FOLDS)
        if folds is None:
            return None
        if score is not None:
            return score[known], folds
        return predict_from_features(self.data.features[known], label[known], 2, folds)[:, 1], folds

    def _resample(self, statistic: Any, codes: NDArray[np.int64]) -> Resamples:  # noqa: ANN401
        return resample(statistic, codes, n_resamples=self.n_resamples, seed=self.seed)


def _values(values: Sequence[Any], column: str) -> tuple[list[str], str]:
    """Return a text for each record, numbers and times in bands; or the reason why there is nothing to tell."""
    found, reason = cut_column(values, column)
    if found:
        return found, ""
    texts = ["(none)" if value is None or value != value else str(value).strip() or "(none)" for value in values]
    return (texts, "") if len(set(texts)) > 1 else ([], reason)


def _explains(told: Interval, own: Interval, alone: Interval) -> bool:
    """Tell whether the features surely know the column, and it surely says something, and enough."""
    if told.low is None or alone.low is None or alone.value is None or own.value is None:
        return False
    return told.low > 0.5 and alone.low > 0.5 and alone.value - 0.5 >= _SHARE * (own.value - 0.5)
