import json
from pathlib import Path

import pytest
from make_run import evaluation, item, make_fit, make_test
from make_speech_run import make_speech_fit, make_speech_test
from page_reader import Page

from lightning_transfer.errors import TransferError
from lightning_transfer.reporting.comparison import _config_differences, build_comparison, write_comparison
from lightning_transfer.reporting.run_files import RunFiles


def test_runs_are_beside_each_other_with_what_differs(tmp_path: Path) -> None:
    metrics = {**evaluation()["metrics"], "macro_f1": item(0.9, 0.8, 0.95)}
    runs = [make_test(make_fit(tmp_path / "one")), make_test(make_fit(tmp_path / "two"), metrics=metrics)]
    config = (runs[1] / "config.yaml").read_text().replace("max_epochs: 4", "max_epochs: 9")
    (runs[1] / "config.yaml").write_text(config)
    page = Page(write_comparison(runs, tmp_path / "out.html").read_text())
    page.check()
    assert "0.700 [0.600, 0.800]" in page.text
    assert "0.900 [0.800, 0.950]" in page.text
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["differences"] == [{"key": "trainer.max_epochs", "values": ["4", "9"]}]
    assert [row["letter"] for row in found["runs"]] == ["A", "B"]
    assert found["warnings"] == []
    # Of the same records: the difference is paired.
    assert found["paired"][0]["same_records"]
    assert "Each run minus A, on the same records" in page.text
    assert found["paired"][0]["metrics"]["accuracy"]["value"] == 0.0


def test_a_run_that_was_not_tested_says_so(tmp_path: Path) -> None:
    runs = [make_test(make_fit(tmp_path / "one")), make_fit(tmp_path / "two")]
    page = Page(write_comparison(runs, tmp_path / "out.html").read_text())
    page.check()
    assert "not tested: run python -m recipes.vision test two" in page.text
    assert "No paired difference: not tested yet: two." in page.text


def test_other_data_and_other_classes_are_a_warning(tmp_path: Path) -> None:
    runs = [make_test(make_fit(tmp_path / "one")), make_test(make_fit(tmp_path / "two", classes=("a", "b")),
                                                             classes=("a", "b"))]  # fmt: skip
    data = json.loads((runs[1] / "data.json").read_text())
    (runs[1] / "data.json").write_text(json.dumps({**data, "fingerprint": "other"}))
    found = build_comparison([RunFiles.read(run) for run in runs])
    assert "different data or splits" in found["warnings"][0]
    assert "different classes" in found["warnings"][1]


def test_runs_of_other_classes_have_no_difference_and_are_called_by_their_letters(tmp_path: Path) -> None:
    others = ("a", "b")
    runs = [
        make_test(make_fit(tmp_path / "one")),
        make_test(make_fit(tmp_path / "two", classes=others), classes=others),
    ]
    page = Page(write_comparison(runs, tmp_path / "out.html").read_text())
    assert "No paired difference: B tells a, b apart (multiclass), and A tells good, pit, scratch" in page.text


def test_names_and_settings_come_out_harmless(tmp_path: Path) -> None:
    nasty = '"><img src=x onerror=alert(1)>'
    runs = [make_test(make_fit(tmp_path / nasty)), make_test(make_fit(tmp_path / "two"))]
    config = (runs[1] / "config.yaml").read_text().replace("backbone: x", "backbone: <script>alert(1)</script>")
    (runs[1] / "config.yaml").write_text(config)
    page = Page(write_comparison(runs, tmp_path / "out.html").read_text())
    page.check()
    assert "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="at least two runs, got 1"):
        write_comparison([tmp_path])


def test_callbacks_are_compared_by_class_not_by_place() -> None:
    def config(*names: str, **values: object) -> dict[str, object]:
        callbacks = [{"class_path": f"package.{name}", "init_args": {"x": 1, **values}} for name in names]
        return {"trainer": {"callbacks": callbacks, "logger": "a"}}

    assert _config_differences([config("One", "Two"), config("Two", "One")]) == []
    [row] = _config_differences([config("One"), config("One", x=2)])
    assert row == {"key": "trainer.callbacks.One.init_args.x", "values": ["1", "2"]}
    keys = [row["key"] for row in _config_differences([config("One"), config("One", "Two")])]
    assert keys == ["trainer.callbacks.Two.class_path"]
    [row] = _config_differences([config("One"), {**config("One"), "seed": 3}])
    assert row["values"] == ["not set", "3"]


def test_recognisers_are_compared_in_words(tmp_path: Path) -> None:
    one = make_speech_test(make_speech_fit(tmp_path / "one"), share=0.3, sound=False)
    two = make_speech_test(make_speech_fit(tmp_path / "two"), share=0.1, sound=False)
    page = Page(write_comparison([one, two], tmp_path / "out.html").read_text())
    page.check()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["metrics"] == ["wer", "cer"]
    rates = [row["metrics"]["wer"]["value"] for row in found["runs"]]
    difference = found["paired"][0]["metrics"]["wer"]
    assert found["paired"][0]["same_records"]
    assert difference["value"] == pytest.approx(rates[1] - rates[0])
    assert difference["shows"] == "better"
    assert "Validation WER" in page.text
    assert "0.050 [0.030, 0.080]" in page.text  # general speech before


def test_a_recogniser_and_a_classifier_are_not_compared(tmp_path: Path) -> None:
    speech = make_speech_test(make_speech_fit(tmp_path / "calls"), sound=False)
    other = make_test(make_fit(tmp_path / "surfaces"), pictures=False)
    with pytest.raises(TransferError, match="`calls` writes down speech and `surfaces` does not"):
        write_comparison([other, speech], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
