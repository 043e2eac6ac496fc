from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation import Outputs, ShortcutTable, evaluate_shortcuts
from lightning_transfer.types import Record, Schema

BINARY = Schema(task="binary", classes=("no", "yes"))
DATA = Path(os.environ.get("LT_DATA_DIR", Path(__file__).parents[4] / "shared" / "data")) / "chestxray"
WEIGHTS = Path(os.environ.get("LT_WEIGHTS_DIR", Path(__file__).parents[4] / "shared" / "weights")) / "mobilenet_v2_qat"


def toy(
    seed: int = 0, *, patients: int = 120, mixed: float = 0.0, told: float = 3.0, own: float = 1.0, images: int = 2
) -> tuple[Outputs, list[Record]]:
    """Return patients whose site is their label in a share ``mixed``, else a coin; features know either by so much."""
    rng = np.random.default_rng(seed)
    label = np.arange(patients) % 2
    site = np.where(rng.random(patients) < mixed, label, rng.integers(0, 2, patients))
    codes = np.repeat(np.arange(patients), images)
    features = np.repeat(rng.normal(size=(patients, 8)), images, axis=0) + 0.3 * rng.normal(size=(len(codes), 8))
    features[:, 0] += told * site[codes]
    features[:, 1] += own * label[codes]
    records = [
        Record(id=str(place), input=None, group=f"p{code}", meta={"site": ("north", "south")[site[code]]})
        for place, code in enumerate(codes.tolist())
    ]
    target = torch.tensor(label[codes].astype(np.float32))
    return Outputs(torch.zeros(len(codes), 0), torch.tensor(features), target, torch.arange(len(codes))), records


def probe(*parts: tuple[Outputs, Sequence[Record]], schema: Schema = BINARY, **options: Any) -> ShortcutTable:
    return evaluate_shortcuts({"frozen": parts}, schema, **{"n_resamples": 200, **options})


def test_known_answers_of_a_confounded_site() -> None:
    [found] = probe(toy(patients=400, mixed=0.6)).shortcuts
    # Two normals three deviations apart (1.04 with the noise of an image): Phi(3 / (1.04 * sqrt(2))).
    assert found.told.value == pytest.approx(0.979, abs=0.02)
    # Four of five are at the site of their label: sensitivity and specificity 0.8.
    assert found.alone.value == pytest.approx(0.8, abs=0.03)
    assert found.within.value is not None
    assert found.own.value is not None
    # Given the site, the label is one deviation away: Phi(1 / (1.04 * sqrt(2))).
    assert found.within.value == pytest.approx(0.752, abs=0.06)
    assert found.own.value > found.within.value + 0.05
    assert found.explains
    assert found.values == ("north", "south")
    assert found.told.num_groups == 400


@pytest.mark.parametrize(
    "how",
    [
        {"mixed": 0.0, "own": 2.0},  # the features know the site, and the site says nothing
        {"mixed": 0.6, "told": 0.0, "own": 2.0},  # the features tell the site only by the finding that goes with it
        {"mixed": 0.25, "own": 4.0},  # the site says little beside what the features find
    ],
    ids=["innocent", "unseen", "weak"],
)
def test_no_alarm_where_one_of_the_three_is_missing(how: dict[str, float]) -> None:
    alarms = [probe(toy(seed, **how)).shortcuts[0].explains for seed in range(6)]
    assert sum(alarms) <= 1  # two of forty by chance


def test_an_innocent_site_is_at_chance() -> None:
    found = [probe(toy(seed, patients=60), n_resamples=20).shortcuts[0] for seed in range(25)]
    alone = np.array([item.alone.value for item in found])
    assert abs(alone.mean() - 0.5) < 3 * alone.std() / 5  # within three standard errors
    assert sum(item.explains for item in found) <= 3


def test_images_of_one_patient_do_not_vouch_for_each_other() -> None:
    """Features that know nothing but the patient tell the site of no new one."""
    rng = np.random.default_rng(0)
    outputs, records = toy(patients=40, told=0.0, own=0.0, images=6)
    exact = torch.tensor(np.repeat(rng.normal(size=(40, 60)), 6, axis=0))
    outputs = Outputs(outputs.logits, exact, outputs.target, outputs.index)
    grouped, alone = probe((outputs, records)), [Record(id=r.id, input=None, meta=r.meta) for r in records]
    assert grouped.shortcuts[0].told.value is not None
    assert grouped.shortcuts[0].told.value < 0.7
    assert (probe((outputs, alone)).shortcuts[0].told.value or 0) > 0.95


def test_the_models_own_score_is_judged_where_it_has_one() -> None:
    outputs, records = toy(mixed=0.6)
    rng = np.random.default_rng(9)
    assert outputs.target is not None
    logits = outputs.target[:, None] + torch.tensor(rng.normal(size=(len(outputs), 1)))
    seen = Outputs(logits, outputs.features, outputs.target, outputs.index)
    table = evaluate_shortcuts({"adapted": [(seen, records)]}, BINARY, n_resamples=50)
    from sklearn.metrics import roc_auc_score

    [found] = table.shortcuts
    assert (found.features, found.finding) == ("adapted", "yes")
    assert found.own.value == pytest.approx(roc_auc_score(outputs.target, logits[:, 0]))


def test_splits_are_joined_by_their_own_positions() -> None:
    outputs, records = toy(mixed=0.6)
    half = len(records) // 2
    first = Outputs(outputs.logits[:half], outputs.features[:half], outputs.target[:half], torch.arange(half))  # type: ignore[index]
    # The second split has records that were not run, in front.
    second = Outputs(
        outputs.logits[half:], outputs.features[half:], outputs.target[half:], torch.arange(3, 3 + half)  # type: ignore[index]
    )  # fmt: skip
    filler = [Record(id="x", input=None, meta={"site": "west"})] * 3
    joined = probe((first, records[:half]), (second, [*filler, *records[half:]]))
    assert joined.to_dict() == probe((outputs, records)).to_dict()


def test_unknown_and_uncertain_labels_are_left_out_of_the_finding_alone() -> None:
    outputs, records = toy(mixed=0.6)
    assert outputs.target is not None
    labels = torch.stack([outputs.target, outputs.target.clone()], dim=1)
    labels[:40, 1], labels[40:60, 1] = float("nan"), 0.5
    schema = Schema(task="multilabel", classes=("edema", "mass"))
    seen = Outputs(outputs.logits, outputs.features, labels, outputs.index)
    by_name = {item.finding: item for item in probe((seen, records), schema=schema).shortcuts}
    assert (by_name["edema"].own.n, by_name["mass"].own.n) == (240, 180)
    assert (by_name["edema"].told.n, by_name["mass"].told.n) == (240, 180)


@pytest.mark.parametrize(("negative", "names"), [("a", {"not a"}), (None, {"a", "b", "c"})])
def test_several_classes_are_one_finding_with_a_negative_one_and_each_its_own_without(
    negative: str | None, names: set[str]
) -> None:
    outputs, records = toy()
    target = torch.arange(len(outputs)) % 3
    seen = Outputs(torch.randn(len(outputs), 3), outputs.features, target, outputs.index)
    schema = Schema(task="multiclass", classes=("a", "b", "c"), negative_class=negative)
    table = evaluate_shortcuts({"frozen": [(seen, records)]}, schema, n_resamples=20)
    assert {item.finding for item in table.shortcuts} == names


def test_columns_that_cannot_be_probed_are_named_with_the_reason() -> None:
    outputs, records = toy()
    for place, record in enumerate(records):
        record.meta.update(  # type: ignore[attr-defined]
            sex="F", scanner=record.meta["site"].upper(), view=f"v{place}", age=None if place // 2 % 3 else place
        )
    table = probe((outputs, records), columns=["site", "scanner", "sex", "view", "sit", "age"])
    assert {item.column for item in table.shortcuts} == {"site", "age"}
    reasons = table.left_out
    assert "Did you mean `site`?" in reasons["sit"]
    assert reasons["scanner (frozen features)"] == "it divides the records as `site` does"
    assert "all records have `F`" in reasons["sex (frozen features)"]
    assert "no value is that of at least 5 groups" in reasons["view (frozen features)"]
    # Numbers in bands, with a band of those without one.
    [age] = [item for item in table.shortcuts if item.column == "age"]
    assert "(none)" in age.values
    assert len(age.values) == 5


def test_by_default_only_columns_that_may_be_shortcuts_are_probed() -> None:
    outputs, records = toy()
    for record in records:
        record.meta["note"] = record.meta["site"]  # type: ignore[index]
    assert {item.column for item in probe((outputs, records)).shortcuts} == {"site"}
    assert probe((outputs, records), columns=[]) == ShortcutTable()


def test_one_class_alone_gives_no_row_and_rows_that_are_not_finite_are_dropped() -> None:
    outputs, records = toy()
    assert outputs.target is not None
    same = Outputs(outputs.logits, outputs.features, torch.ones_like(outputs.target), outputs.index)
    assert probe((same, records)).shortcuts == ()
    features = outputs.features.clone()
    features[:10] = float("nan")
    [found] = probe((Outputs(outputs.logits, features, outputs.target, outputs.index), records)).shortcuts
    assert found.told.n == len(records) - 10


def test_of_many_records_whole_patients_are_drawn() -> None:
    table = probe(toy(patients=300, images=3), max_records=150)
    [found] = table.shortcuts
    assert (found.told.n, found.told.num_groups) == (150, 50)
    assert table.notes == ("The probes saw 150 of 900 records, whole groups drawn at random.",)


def test_plain_values_and_names_of_metrics() -> None:
    table = probe(toy(mixed=0.6))
    json.dumps(table.to_dict(), allow_nan=False)
    assert list(table.flat()) == [f"shortcut_site_{name}_frozen" for name in ("told_by", "alone_on", "within_on")]
    assert table.flat()["shortcut_site_alone_on_frozen"] == table.shortcuts[0].alone


@pytest.mark.real_data
@pytest.mark.skipif(
    not (DATA.is_dir() and WEIGHTS.is_dir()), reason=f"needs LT_DATA_DIR and LT_WEIGHTS_DIR: no {DATA} or {WEIGHTS}"
)
def test_the_hospital_explains_covid_on_real_chest_x_rays() -> None:
    """The set's own makers warn of it; 46 of 48 patients of one hospital have COVID-19."""
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.data import ImagePreprocessing

    with (DATA / "metadata.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["binary"]]
    records = [
        Record(id=row["path"], input=DATA / row["path"], group=row["patientid"], meta={"location": row["location"]})
        for row in rows
    ]
    backbone, card = load_backbone("torchvision/mobilenet_v2", weights=str(next(WEIGHTS.glob("*.pth"))))
    read = ImagePreprocessing.from_card(card, 96)
    with torch.inference_mode():
        features = backbone.eval()(torch.stack([read(record.input) for record in records]))
    target = torch.tensor([float(row["binary"] == "covid") for row in rows])
    schema = Schema(task="binary", classes=("other", "covid"))
    seen = Outputs(torch.zeros(len(rows), 0), features, target, torch.arange(len(rows)))
    [found] = probe((seen, records), schema=schema, n_resamples=1000).shortcuts
    assert found.explains
    assert found.told.low is not None
    assert found.told.low > 0.6
    assert found.alone.low is not None
    assert found.alone.low > 0.55
