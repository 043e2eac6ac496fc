"""TF-IDF and logistic regression are scikit-learn's, chosen by groups, and never fail on odd data."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from lightning_transfer.data.plain_texts import USUAL_STRENGTH, plain_text_classifier
from lightning_transfer.types import Record, Schema

WORDS = {
    "money": ("invoice", "refund", "paid", "price"),
    "repair": ("lamp", "broken", "door", "screen"),
    "way": ("late", "parcel", "where", "when"),
}
QUEUES = Schema("multiclass", ("money", "repair", "way"))


def rows(count: int, seed: int = 0, split: str = "train") -> list[Record]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        name = QUEUES.classes[number % 3]
        text = " ".join([*rng.choice(WORDS[name], 2), *rng.choice(["please", "my", "the", "lamp", "paid"], 3)])
        found.append(Record(f"{split} {number}", text, name, split, group=f"customer {number // 3}"))
    return found


def test_it_is_what_scikit_learn_makes() -> None:
    train, test = rows(60), rows(30, 1, "test")
    classify, how = plain_text_classifier(train, QUEUES, strengths=(10.0,))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([row.input for row in train])
    model = LogisticRegression(C=10.0, max_iter=300).fit(
        vectorizer.transform([row.input for row in train]), [row.label for row in train]
    )
    expected = model.predict_log_proba(vectorizer.transform([row.input for row in test]))
    np.testing.assert_allclose(classify(test), expected, atol=1e-6)
    assert "C=10" in how


def test_it_is_better_than_chance_on_new_texts() -> None:
    classify, how = plain_text_classifier(rows(90), QUEUES)
    test = rows(60, 1, "test")
    right = [QUEUES.classes[place] == row.label for place, row in zip(classify(test).argmax(axis=1), test, strict=True)]
    assert np.mean(right) > 0.8
    assert "by 3 folds" in how


def test_several_labels_are_one_model_each() -> None:
    schema = Schema("multilabel", ("money", "repair", "way"))
    train = [
        Record(row.id, row.input, tuple(float(row.label == name) for name in schema.classes), "train", row.group)
        for row in rows(60)
    ]
    classify, _ = plain_text_classifier(train, schema, strengths=(1.0,))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([row.input for row in train])
    features = vectorizer.transform([row.input for row in train])
    model = OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=300)).fit(features, [row.label for row in train])
    probabilities = 1 / (1 + np.exp(-classify(train)))
    np.testing.assert_allclose(probabilities, model.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize("train", [rows(4), [row for row in rows(30) if row.label != "way"]])
def test_few_texts_and_a_class_that_training_lacks(train: list[Record]) -> None:
    classify, how = plain_text_classifier(train, QUEUES)
    found = classify(rows(9, 1))
    assert found.shape == (9, 3)
    assert np.isfinite(found).all()
    if len(train) == 4:
        assert f"C={USUAL_STRENGTH:g} (not chosen: few texts)" in how
    else:
        assert found[:, 2].max() == pytest.approx(np.log(1e-6))


def test_texts_without_label_are_left_out() -> None:
    known = rows(60)
    unknown = [Record("new", "strange words only", None, "train")]
    np.testing.assert_array_equal(
        plain_text_classifier([*known, *unknown], QUEUES)[0](known), plain_text_classifier(known, QUEUES)[0](known)
    )
