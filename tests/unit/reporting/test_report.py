import json
import math
from pathlib import Path
from typing import Any

import pytest
from make_run import CLASSES, evaluation, item, make_fit, make_test, routing, write
from page_reader import Page

from lightning_transfer.errors import TransferError
from lightning_transfer.reporting.report import _TITLES, build_report, write_report
from lightning_transfer.reporting.run_files import RunFiles

NASTY = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://evil.example")',
    "javascript:alert(1)",
    "data:text/html,<b>",
    "</style></title></svg><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "`<b>x</b>`",
)


def page_of(folder: Path, **options: Any) -> Page:
    return Page(write_report(folder, **options).read_text(encoding="utf-8"))


def test_a_whole_run_is_one_page_that_fetches_and_runs_nothing(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    page = page_of(folder)
    page.check()
    for name, title in _TITLES.items():
        assert (title in page.text) == (name not in ("findings", "routing", "shortcuts"))
    assert "Could not be shown" not in page.text
    assert "script" not in page.tags
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
    assert "Better than the best baseline: macro-F1 0.700 [0.600, 0.800] on 60 test records in 30 groups" in page.text
    assert (folder / "report.html").stat().st_size < 200_000
    # Each of the three errors with its picture and its neighbour.
    assert page.tags.count("img") == 6
    assert "2 groups lie on both sides." in page.text
    assert "stands out" in page.text
    assert "non-commercial use only" in page.text


def test_drawings_speak_to_who_cannot_see_them(tmp_path: Path) -> None:
    page = page_of(make_test(make_fit(tmp_path / "run")))
    drawings = page.tags.count("svg")
    named = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(named) == drawings >= 8
    assert any(text.startswith("Reliability. as it should be: 0.000 to 1.000") for text in named)
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))


def test_the_json_has_the_numbers_of_the_page(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    page = page_of(folder)
    found = json.loads((folder / "report.json").read_text())
    assert found == json.loads(json.dumps(build_report(RunFiles.read(folder))))
    assert set(found["sections"]) == set(_TITLES) - {"findings", "routing", "shortcuts"}
    assert all(sentence.replace("`", "") in page.text for sentence in found["verdict"]["sentences"])
    assert found["sections"]["scores"]["metrics"]["macro_f1"] == item(0.7, 0.6, 0.8)
    assert "img" not in (folder / "report.json").read_text()


@pytest.mark.parametrize("text", NASTY)
def test_a_label_a_file_name_and_a_column_come_out_harmless(tmp_path: Path, text: str) -> None:
    classes = ("good" + text, "pit" + text, "scratch")
    changes = evaluation(classes)
    changes["slices"][0] |= {"column": text, "value": text}
    changes["descriptions"] = {"linear_probe": text}
    changes["metrics"]["auroc"] = item(None, reason=text)
    folder = make_fit(tmp_path / "run", classes=classes, warnings=[text], notes=[text], reason=text)
    ids = [f"{place}{text}.png" for place in range(3)]
    make_test(folder, classes, ids=ids, **{key: changes[key] for key in ("slices", "descriptions", "metrics")},
              pictures="/" not in text)  # fmt: skip
    write(folder / "environment.json", {"command": text, "device": text, "versions": {text: text}})
    finding = {"code": "x", "severity": text, "message": text, "examples": [text], "advice": text}
    write(folder / "check.json", {"findings": [finding], "suspects": [{"id": text, "label": text, "suggested": text}]})
    data = json.loads((folder / "data.json").read_text())
    write(folder / "data.json", {**data, "skipped": {text: text}})
    write(folder / "export" / "export.json", {"files": [{"name": text}]})
    page = page_of(folder)
    page.check()
    assert "Could not be shown" not in page.text
    # It is there, as text.
    assert page.text.count(" ".join(text.replace("`", "").split())) >= 5


@pytest.mark.parametrize("text", NASTY)
def test_a_text_comes_out_harmless_and_whole(tmp_path: Path, text: str) -> None:
    folder = make_fit(tmp_path / "run", kind="text")
    routed = routing(reasons={text: 3}, decisions={text: 3})
    routed["policy"] |= {"rule": text, "out_of_scope_score": text, "costs": {text: {text: 1.0}, "ask": 2.0}}
    routed["out_of_scope"]["scores"] = {text: {"auroc": item(0.8), "fpr95": item(0.1), "chosen": True}}
    pair = {"true": text, "predicted": text, "n": 3, "share": 0.1, "examples": [text, "b"]}
    make_test(folder, texts=[text, f"{text} & more", "c"], pictures=False, routing=routed, confusion_pairs=[pair])
    page = page_of(folder)
    page.check()
    assert "Could not be shown" not in page.text
    assert page.text.count(" ".join(text.replace("`", "").split())) >= 10
    assert page.tags.count("blockquote") == 3
    assert f"{' '.join(text.split())} & more" in page.text
    assert "img" not in page.tags


def test_the_name_of_the_folder_comes_out_harmless(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / '"><b onclick=x>'))
    page = page_of(folder)
    page.check()
    assert "b" not in page.tags


def test_before_the_test_each_section_says_what_to_run(tmp_path: Path) -> None:
    page = page_of(make_fit(tmp_path / "run"))
    page.check()
    assert page.text.count("Not measured: run python -m recipes.vision test RUN") >= 7
    assert "Could not be shown" not in page.text
    assert "not tested yet" in page.text


def test_a_run_with_its_config_alone_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    page = page_of(tmp_path / "run")
    page.check()
    assert "Could not be shown" not in page.text
    for name, title in _TITLES.items():
        assert (title in page.text) == (name not in ("findings", "routing", "shortcuts"))


@pytest.mark.parametrize("name", ["data", "plan", "metrics", "cost", "check", "environment"])
@pytest.mark.parametrize("values", ["list", "numbers", "broken"])
def test_a_file_of_another_form_takes_no_other_section_away(tmp_path: Path, name: str, values: str) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    content = json.loads((folder / f"{name}.json").read_text())
    strange: Any = {key: 3 if values == "numbers" else ["a"] for key in content}
    (folder / f"{name}.json").write_text("{" if values == "broken" else json.dumps(strange))
    page = page_of(folder, grad_cam=False)
    page.check()
    assert "macro-F1 0.700 [0.600, 0.800]" in page.text or name == "data"
    if values == "broken":
        assert "Files that could not be read" in page.text


@pytest.mark.parametrize("key", sorted(set(evaluation()) - {"n", "task"}))
@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}, None, "a"])
def test_an_evaluation_of_another_form_is_no_crash(tmp_path: Path, key: str, value: Any) -> None:
    folder = make_test(make_fit(tmp_path / "run"), pictures=False)
    write(folder / "test" / "evaluation.json", {**evaluation(), key: value})
    page_of(folder, grad_cam=False).check()


@pytest.mark.parametrize("key", [*sorted(routing()), "policy.costs", "policy.threshold", "out_of_scope.scores"])
@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}, {"a": {"auroc": 2}}, None, "a"])
def test_a_routing_of_another_form_is_no_crash(tmp_path: Path, key: str, value: Any) -> None:
    folder = make_test(make_fit(tmp_path / "run", kind="text"), texts=["a", "b", "c"], pictures=False)
    found, (first, _, second) = routing(), key.partition(".")
    found[first] = {**found[first], second: value} if second else value
    write(folder / "test" / "evaluation.json", {**evaluation(), "routing": found})
    page = page_of(folder)
    page.check()
    assert "macro-F1 0.700 [0.600, 0.800]" in page.text


@pytest.mark.parametrize("value", [3, ["a"], [{"true": "a"}], [{"true": "a", "predicted": "b", "n": "x"}], "a"])
def test_pairs_of_another_form_are_no_crash(tmp_path: Path, value: Any) -> None:
    folder = make_test(make_fit(tmp_path / "run"), pictures=False, confusion_pairs=value)
    page = page_of(folder, grad_cam=False)
    page.check()
    assert "Most frequent confusions" not in page.text


def test_a_page_on_texts_speaks_of_texts(tmp_path: Path) -> None:
    folder = make_fit(tmp_path / "run", kind="text")
    data = json.loads((folder / "data.json").read_text())
    write(folder / "data.json", {**data, "negative_class": None, "num_groups": {}, "skipped": {"t9": "empty"}})
    make_test(folder, texts=["Where is my parcel?", "b", "c"], pictures=False, negative_class=None,
              calibration={"temperature": 1.2}, routing=routing())  # fmt: skip
    page = page_of(folder)
    page.check()
    for word in ("image", "picture", "Grad-CAM", "sensor", "one part", "path/to"):
        assert word not in page.text, word
    assert "records of one customer or thread may be on both sides" in page.text
    assert "Where is my parcel?" in page.text
    assert "Nearest in training: " in page.text
    assert 'predict(["the text of a ticket"])' in page.text
    assert "Threshold" not in [item["title"] for item in build_report(RunFiles.read(folder))["sections"].values()]


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_undefined_is_shown_with_its_reason(tmp_path: Path, value: float | None) -> None:
    metrics = {**evaluation()["metrics"], "auroc": item(value, reason="no record of `pit`")}
    page = page_of(make_test(make_fit(tmp_path / "run"), metrics=metrics))
    assert "n/a (no record of `pit`)" in page.text
    assert "nan" not in page.text.lower().replace("dominan", "")
    assert "None" not in page.text


def test_pictures_that_are_gone_are_said(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    for path in (tmp_path / "data").glob("*.png"):
        path.unlink()
    page = page_of(folder)
    assert "The pictures are not shown: the files are not there any more." in page.text
    assert "a.png" in page.text
    (tmp_path / "data").rmdir()
    assert "give --data_root DIR" in page_of(folder).text


def test_a_file_outside_the_data_is_not_shown(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    config = (folder / "config.yaml").read_text()
    (tmp_path / "other").mkdir()
    (folder / "config.yaml").write_text(config.replace(str(tmp_path / "data"), str(tmp_path / "other")))
    assert "img" not in page_of(folder).tags


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    path = write_report(folder)
    path.write_text("old")
    assert "old" not in write_report(folder).read_text()[:100]
    assert not [item for item in folder.iterdir() if item.name.endswith(".part")]


def test_labels_that_do_not_fit_the_classes_are_no_errors(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"))
    data = json.loads((folder / "data.json").read_text())
    write(folder / "data.json", {**data, "task": "multilabel"})
    page = page_of(folder)
    assert "The model made no error on the test split" in page.text
    assert "img" not in page.tags


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="it is no run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_classes_are_in_order(tmp_path: Path) -> None:
    report = build_report(RunFiles.read(make_test(make_fit(tmp_path / "run"))))
    assert [row["name"] for row in report["sections"]["classes"]["rows"]] == list(CLASSES)
