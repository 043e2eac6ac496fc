"""What a text says without any network: TF-IDF and logistic regression, the baseline that pretraining must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.types import Record, Schema

__all__ = ["STRENGTHS", "USUAL_STRENGTH", "plain_text_classifier"]

STRENGTHS = (1.0, 10.0, 100.0)
"""Values of scikit-learn's ``C`` that `plain_text_classifier` chooses from."""

USUAL_STRENGTH = 10.0
"""Where there is nothing, or too much, to choose by: of three powers of ten the best on texts of one sentence."""

_MIN_TO_CHOOSE = 3  # examples of the rarest class, for as many folds
_MAX_TO_CHOOSE = 3000  # texts; with more, ten fits take minutes, and their result hardly depends on the strength
_Scores = npt.NDArray[np.float64]


def plain_text_classifier(
    train: Sequence[Record], schema: Schema, *, strengths: Sequence[float] = STRENGTHS
) -> tuple[Callable[[Sequence[Record]], _Scores], str]:
    """Fit logistic regression on TF-IDF of words and pairs of words.

    Lower case, sublinear counts, words in at least two texts of large sets. Of up to 3000 texts its strength is
    chosen by cross-validation over the groups of the training records.

    Args:
        train: Texts with labels; those without are left out.
        schema: Names task and classes.
        strengths: Values of ``C`` to choose from, by accuracy; the first that is best.

    Returns:
        What maps records to logits ``(N, num_logits)``, and a description of what was chosen.

    Example:
        >>> rows = [Record(str(n), text, label) for n, (text, label) in enumerate(
        ...     [("lamp broken", "repair"), ("broken door", "repair"), ("pay bill", "money"), ("bill wrong", "money")])]
        >>> classify, how = plain_text_classifier(rows, Schema("multiclass", ("money", "repair")))
        >>> classify([Record("new", "my bill", None)]).argmax(axis=1).tolist()
        [0]
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = [record for record in train if record.label is not None]
    texts = [record.input for record in known]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(texts) > 1000 else 1)
    features = vectorizer.fit_transform(texts)
    targets = _targets(known, schema)
    groups = [record.group or record.id for record in known]
    strength, how = _choose(features, targets, groups, strengths)
    models = [_fit(features, target, strength) for target in targets]

    def classify(records: Sequence[Record]) -> _Scores:
        found = vectorizer.transform([record.input for record in records])
        if schema.task == "multiclass":
            return _log_probabilities(models[0], found, schema.num_classes)
        two_sided = [_log_probabilities(model, found, 2) for model in models]
        return np.stack([rows[:, 1] - rows[:, 0] for rows in two_sided], axis=1)

    size = features.shape[1]
    return classify, f"TF-IDF of {size} words and pairs of words, logistic regression with C={strength:g} {how}"


def _targets(records: Sequence[Record], schema: Schema) -> list[npt.NDArray[np.int64]]:
    """Return one vector of classes; for multi-label one of 0 and 1 for each class, a missing label being 0."""
    if schema.task == "multilabel":
        table = np.asarray([[value == 1.0 for value in record.label or ()] for record in records], dtype=np.int64)
        return list(table.T)
    place = {name: number for number, name in enumerate(schema.classes)}
    return [np.asarray([place[str(record.label)] for record in records])]


def _choose(
    features: Any,  # noqa: ANN401 - a sparse matrix of scipy
    targets: Sequence[npt.NDArray[np.int64]],
    groups: Sequence[str],
    strengths: Sequence[float],
) -> tuple[float, str]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    counts = np.bincount(targets[0])
    if features.shape[0] > _MAX_TO_CHOOSE:
        return USUAL_STRENGTH, "(not chosen: many texts)"
    if len(set(groups)) < 2 * _MIN_TO_CHOOSE or counts[counts > 0].min() < _MIN_TO_CHOOSE:
        return USUAL_STRENGTH, "(not chosen: few texts)"
    single = len(targets) == 1
    folds = (StratifiedGroupKFold if single else GroupKFold)(n_splits=_MIN_TO_CHOOSE)
    parts = list(folds.split(features, targets[0], groups))
    scores = []
    for strength in strengths:
        right = []
        for train, test in parts:
            for target in targets:
                said = _fit(features[train], target[train], strength).predict(features[test])
                right.append(float(np.mean(said == target[test])))
        scores.append(np.mean(right))
    return strengths[int(np.argmax(scores))], f"(accuracy {max(scores):.3f} by {len(parts)} folds)"


def _fit(features: Any, target: npt.NDArray[np.int64], strength: float) -> Any:  # noqa: ANN401 - an estimator
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(target)) == 1:
        return DummyClassifier(strategy="prior").fit(features, target)
    return LogisticRegression(C=strength, max_iter=300).fit(features, target)


def _log_probabilities(model: Any, features: Any, num_classes: int) -> _Scores:  # noqa: ANN401 - as above
    """Return ``(N, num_classes)``; a class that training lacks gets as little as one text in a million."""
    found = np.full((features.shape[0], num_classes), 1e-6)
    found[:, model.classes_] = np.clip(model.predict_proba(features), 1e-6, 1.0)
    return np.asarray(np.log(found))
