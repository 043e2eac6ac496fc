from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import item, make_fit, make_test, write
from make_speech_run import make_speech_fit, make_story

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.retention import retention_charts, retention_sentence, sweep_section
from lightning_transfer.reporting.run_files import RunFiles

GENERAL = Forgetting({"source wer": {"before": item(0.05), "after": item(0.07), "change": item(0.02)}})


def story(**changes: Any) -> RunFiles:
    return RunFiles(Path("x"), forgetting=make_story(**changes))


def test_rows_show_both_rates_and_what_was_chosen() -> None:
    found = sweep_section(story(), GENERAL)["sweep"]
    assert (found["new_label"], found["old_label"]) == ("validation WER", "WER on general speech")
    assert [row["percent"] for row in found["rows"]] == [f"{10 * number}%" for number in range(1, 11)]
    for row in found["rows"]:
        assert row["old"] == pytest.approx(0.05 + 0.034 * row["alpha"] ** 2)
        assert row["within"] == (row["loss"] <= 0.02)
    assert [row["percent"] for row in found["rows"] if row["chosen"]] == ["70%"]
    assert (found["start"]["new"], found["start"]["old"]) == (0.55, 0.05)
    budget = sweep_section(story(), GENERAL)["budget"]
    assert [row["chosen"] for row in budget["rows"]] == [False, True, False, False]
    assert [row["within"] for row in budget["rows"]] == [True, True, True, False]
    assert budget["rows"][2]["old"] == pytest.approx(0.066)


def test_the_trade_off_marks_the_chosen_point_and_the_budget() -> None:
    mixtures, epochs = retention_charts(story(), GENERAL)
    assert [line["name"] for line in mixtures.lines] == ["mixtures", "chosen", "pretrained", "budget"]
    assert len(mixtures.lines[0]["dots"]) == 11
    [(x, y, _, text)] = mixtures.lines[1]["dots"]
    assert text.startswith("70% adapted: validation WER 0.280, WER on general speech 0.067")
    assert (x, y) in [(dot[0], dot[1]) for dot in mixtures.lines[0]["dots"]]
    assert mixtures.lines[3]["dashed"]
    assert [line["name"] for line in epochs.lines] == ["epochs", "best within it", "budget"]
    assert "left is better" in epochs.x_label
    assert "down is better" in epochs.y_label


def test_a_sentence_says_how_the_weights_were_chosen() -> None:
    assert retention_sentence(story(), GENERAL) == (
        "The weights are a mixture, 70% adapted: the best that kept within the tolerance."
    )
    budget = make_story()["retention"]
    alone = story(monitors=[])
    assert retention_sentence(alone, GENERAL) == "Epoch 1 was kept, the best within the budget of 0.020."
    past = {**budget, "best": budget["rows"][3]}
    assert retention_sentence(story(monitors=[], retention=past), GENERAL).startswith("No epoch was within the budget")
    none = make_story()["monitors"]
    none[0]["interpolation"]["alpha"] = None
    assert "the adapted ones stayed" in retention_sentence(story(monitors=none, retention=None), GENERAL)
    assert "Epoch 1 was kept" in retention_sentence(story(monitors=none), GENERAL)
    assert retention_sentence(RunFiles(Path("x")), GENERAL) == ""


def test_what_is_no_word_error_stays_a_loss() -> None:
    monitors = [{"interpolation": {"alpha": 0.5, "monitor": "val_macro_f1", "mode": "max",
                                   "limits": {"forgetting_photos_agreement": 0.1},
                                   "tried": [{"alpha": 0.5, "score": 0.8, "within": True,
                                              "readings": {"forgetting_photos_agreement": 0.04,
                                                           "forgetting_kl": 0.1}}]}}]  # fmt: skip
    found = sweep_section(story(monitors=monitors, retention=None), GENERAL)
    assert found["sweep"]["old_label"] == "photos agreement lost"
    assert found["sweep"]["rows"][0]["old"] == 0.04
    assert found["budget"] == {}
    named = Forgetting({"source news wer": {"before": item(0.1)}})
    monitors[0]["interpolation"]["limits"] = {"forgetting_news_wer": 0.1}
    monitors[0]["interpolation"]["tried"][0]["readings"] = {"forgetting_news_wer": 0.02}
    found = sweep_section(story(monitors=monitors, retention=None), named)["sweep"]
    assert (found["old_label"], found["rows"][0]["old"]) == ("WER on news", pytest.approx(0.12))


def test_nothing_that_was_not_done_is_shown() -> None:
    empty = {"sweep": {}, "budget": {}}
    assert sweep_section(RunFiles(Path("x")), GENERAL) == empty
    assert retention_charts(RunFiles(Path("x")), GENERAL) == []
    assert sweep_section(story(monitors=[{"checks": 3}], retention=None), GENERAL) == empty
    unread = make_story()
    for row in unread["monitors"][0]["interpolation"]["tried"]:
        row["readings"] = {"forgetting_wer": None}
    unread["monitors"][0]["interpolation"]["pretrained"] = None
    assert sweep_section(replace(story(), forgetting=unread), GENERAL)["sweep"] == {}


def test_a_classifiers_page_shows_its_sweep_too(tmp_path: Path) -> None:
    from page_reader import Page

    from lightning_transfer.reporting.report import write_report

    folder = make_test(make_fit(tmp_path / "run"), pictures=False)
    before = write_report(folder).read_text()
    tried = [
        {
            "alpha": alpha,
            "score": 0.5 + alpha / 3,
            "within": alpha < 0.6,
            "readings": {"forgetting_agreement": alpha / 6},
        }
        for alpha in (0.1, 0.5, 1.0)
    ]
    interpolation = {"alpha": 0.5, "monitor": "val_macro_f1", "mode": "max", "tried": tried}
    interpolation["limits"] = {"forgetting_agreement": 0.1}
    write(folder / "forgetting.json", {"monitors": [{"interpolation": interpolation}], "retention": None})
    page = Page(write_report(folder).read_text())
    page.check()
    assert "Pretrained and adapted weights mixed" in page.text
    assert "50% chosen" in page.text
    (folder / "forgetting.json").unlink()
    assert write_report(folder).read_text() == before


@pytest.mark.parametrize("name", ["monitors", "retention"])
@pytest.mark.parametrize("value", [3, ["a"], {"rows": 3}, [{"interpolation": 3}], [{"interpolation": {"tried": 3}}]])
def test_a_story_of_another_form_is_left_out(tmp_path: Path, name: str, value: Any) -> None:
    folder = make_speech_fit(tmp_path / "run")
    write(folder / "forgetting.json", make_story(**{name: value}))
    run = RunFiles.read(folder)
    assert any("forgetting.json" in problem for problem in run.problems)
    assert sweep_section(run, GENERAL)["sweep" if name == "monitors" else "budget"] == {}
