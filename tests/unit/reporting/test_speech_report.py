import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from make_run import item, make_fit, make_test, write
from make_speech_run import make_records, make_speech_fit, make_speech_test
from page_reader import Page

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.report import build_report, write_report
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.speech_report import SPEECH_TITLES, speech_data, speech_forgetting_charts

NASTY = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</style></title></svg><svg onload=alert(1)>",
    "</ins></del></audio><audio src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "`<b>x</b>`",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech_test(make_speech_fit(tmp_path_factory.mktemp("calls") / "run"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to change; its config names the data of the first."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def page_of(folder: Path, **options: Any) -> Page:
    return Page(write_report(folder, **options).read_text(encoding="utf-8"))


def test_a_whole_run_is_one_page_that_fetches_and_runs_nothing(folder: Path) -> None:
    page = page_of(folder)
    page.check()
    for title in SPEECH_TITLES.values():
        assert title in page.text
    assert "Could not be shown" not in page.text
    assert "Not measured" not in page.text
    assert "None" not in page.text
    for text in ("Adapting helps: WER", "General speech got worse: WER 0.050", "Look first at: speaker “finn”",
                 "120", "15 min 0 s", "Utterances by accent", "better", "acme plus", "changed by",
                 "Real-time factor: 0.03125", "70% chosen", "past the budget", "Majumdar et al. 2022"):  # fmt: skip
        assert text.lower() in page.text.lower(), text
    assert (folder / "report.html").stat().st_size < 300_000
    # Nothing of the sort that classifiers have.
    for word in ("macro-F1", "Confusion", "Threshold", "classes", "temperature", "picture"):
        assert word not in page.text, word


def test_the_alignment_is_told_apart_without_colours(folder: Path) -> None:
    page = page_of(folder)
    values = json.loads((folder / "test" / "evaluation.json").read_text())
    worst = values["worst"][:10]
    shown = {item["id"] for item in worst}
    worst += [item for row in values["speakers"][:5] for item in row["worst"] if item["id"] not in shown]
    deleted = sum(item["counts"]["deletions"] for item in worst)
    inserted = sum(item["counts"]["insertions"] for item in worst)
    substituted = sum(item["counts"]["substitutions"] for item in worst)
    # One of each in the legend.
    assert page.tags.count("del") == deleted + substituted + 2
    assert page.tags.count("ins") == inserted + substituted + 2
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("span", "title")]
    assert sum(title.startswith("said, not heard: ") for title in titles) == deleted + 1
    assert sum(title.startswith("heard, not said: ") for title in titles) == inserted + 1


def test_drawings_speak_to_who_cannot_see_them(folder: Path) -> None:
    page = page_of(folder)
    named = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(named) == page.tags.count("svg") > 20
    assert any(text.startswith("Pretrained and adapted weights mixed. mixtures: ") for text in named)
    assert any("hits" not in text and "right, " in text for _, name, text in page.attributes if name == "aria-label")


def test_the_json_has_the_numbers_of_the_page(folder: Path) -> None:
    page = page_of(folder)
    found = json.loads((folder / "report.json").read_text())
    assert found == json.loads(json.dumps(build_report(RunFiles.read(folder))))
    assert list(found["sections"]) == list(SPEECH_TITLES)
    assert all(sentence.replace("`", "") in page.text for sentence in found["verdict"]["sentences"])


def test_sound_is_embedded_on_request_alone(folder: Path) -> None:
    silent = page_of(folder)
    assert "audio" not in silent.tags
    assert "report RUN --audio true" in silent.text
    policy = next(value for tag, name, value in silent.attributes if name == "content" and "default-src" in value)
    assert "media-src" not in policy
    loud = page_of(folder, audio=True)
    loud.check()
    sources = [value for tag, name, value in loud.attributes if (tag, name) == ("audio", "src")]
    assert len(sources) == 5
    policy = next(value for tag, name, value in loud.attributes if name == "content" and "default-src" in value)
    assert "media-src data:" in policy
    assert (folder / "report.html").stat().st_size < 1_000_000
    assert "data:audio" not in (folder / "report.json").read_text()


@pytest.mark.parametrize("text", NASTY)
def test_a_transcript_a_speaker_and_a_file_name_come_out_harmless(tmp_path: Path, text: str) -> None:
    folder = make_speech_fit(tmp_path / "run", warnings=[text], notes=[text], reason=text)
    plain = [type(r)(**{**vars(r), "label": f"{r.label} {text}", "group": f"{text} {r.group}", "id": f"{text}{r.id}",
                        "meta": {**r.meta, text: text}})
             for r in make_records(folder.parent / "data", speakers=3)]  # fmt: skip
    make_speech_test(folder, plain, texts=[f"{text} so {place}" for place in range(len(plain))], sound=False)
    file = folder / "test" / "evaluation.json"
    values = json.loads(file.read_text())
    for part in values["worst"][0]["parts"]:
        part["reference"], part["hypothesis"] = [text for _ in part["reference"]], [text for _ in part["hypothesis"]]
    values["worst"][0] |= {"problem": text, "path": text}
    values["keywords"] = [{**values["keywords"][0], "keyword": text}]
    values["normalised"] = [{**values["normalised"][0], "before": text, "after": text}]
    values["confusions"] = [{"said": text, "heard": text, "n": 3, "examples": [text]}]
    values |= {"notes": [text], "num_problems": {text: 2}, "normaliser": text, "descriptions": {"pretrained": text}}
    write(file, values)
    data = json.loads((folder / "data.json").read_text())
    speech = {text: {"utterances": 3, "seconds": 2.0, "unknown": 1, "speakers": 2, "columns": {text: {text: 3}}}}
    write(folder / "data.json", {**data, "speech": speech, "skipped": {text: text}})
    page = page_of(folder, audio=True)
    page.check()
    assert "Could not be shown" not in page.text
    assert page.text.count(" ".join(text.replace("`", "").split())) >= 20
    card = (folder / "model_card.md").read_text()
    assert "<script" not in card
    assert "<img" not in card


def test_before_the_test_each_section_says_what_to_run(tmp_path: Path) -> None:
    page = page_of(make_speech_fit(tmp_path / "run"))
    page.check()
    assert page.text.count("Not measured: run python -m recipes.speech test RUN") >= 6
    assert "Could not be shown" not in page.text
    assert "General speech got worse" in page.text


def test_what_a_run_did_not_measure_is_said(tmp_path: Path) -> None:
    folder = make_speech_fit(tmp_path / "run")
    for name in ("forgetting.json", "plan.json", "cost.json", "check.json", "environment.json"):
        (folder / name).unlink()
    (folder / "logs" / "csv" / "metrics.csv").unlink()
    write(folder / "metrics.json", {})
    records = [type(r)(**{**vars(r), "group": None, "meta": {}}) for r in make_records(folder.parent / "data")]
    make_speech_test(folder, records, before=None, keywords=(), sound=False)
    data = json.loads((folder / "data.json").read_text())
    for key in ("speech", "num_groups", "columns"):
        data.pop(key)
    write(folder / "data.json", data)
    page = page_of(folder)
    page.check()
    assert "Could not be shown" not in page.text
    for text in ("what it was before adapting is not measured", "What of general speech was lost is not measured",
                 "name the words that matter", "the records name no speaker", "the run has no `plan.json`",
                 "the data have no further columns", "Not checked", "48 utterances have no speaker",
                 "records of one speaker may be on both sides"):  # fmt: skip
        assert text.replace("`", "") in page.text, text


@pytest.mark.parametrize(
    "key",
    ["words", "speakers", "keywords", "worst", "confusions", "normalised", "baselines", "differences", "metrics",
     "slices", "notes", "num_problems", "seconds_of_audio", "normaliser", "descriptions", "characters"],
)  # fmt: skip
@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}, [{"parts": 3}], None, "a", math.nan])
def test_an_evaluation_of_another_form_is_no_crash(folder: Path, key: str, value: Any) -> None:
    file = folder / "test" / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    page = page_of(folder)
    page.check()
    assert "Could not be shown" not in page.text
    assert "WER" in page.text
    assert "nan" not in page.text.split()


def test_a_run_without_its_evaluation_shows_what_the_flat_metrics_hold(folder: Path) -> None:
    (folder / "test" / "evaluation.json").unlink()
    page = page_of(folder)
    page.check()
    assert "Could not be shown" not in page.text
    assert "before adapting" in page.text
    assert "Adapting helps: WER" in page.text


def test_hours_speakers_and_accents_of_each_split(folder: Path) -> None:
    found = speech_data(RunFiles.read(folder))
    assert found["speech_splits"][0] == {
        "split": "train", "utterances": 120, "seconds": 900.0, "unknown": 0, "speakers": 8,
    }  # fmt: skip
    assert found["columns"][0]["name"] == "accent"
    assert found["columns"][0]["rows"] == [
        {"value": "received", "counts": [60, 20, 24]},
        {"value": "scottish", "counts": [60, 20, 24]},
    ]
    run = RunFiles.read(folder)
    bare = RunFiles(**{**vars(run), "data": {**run.data, "speech": {}}})
    assert speech_data(bare)["speech_splits"][0] == {
        "split": "train", "utterances": 120, "seconds": None, "unknown": 0, "speakers": 8,
    }  # fmt: skip
    assert "no `data.json`" in speech_data(RunFiles(folder))["missing"]


def test_the_trade_off_over_the_epochs_is_shown_once(folder: Path) -> None:
    run = RunFiles.read(folder)
    found = [chart.title for chart in speech_forgetting_charts(run, Forgetting.read(run))]
    assert found == ["Forgetting while training", "Pretrained and adapted weights mixed", "Epochs under the budget"]
    alone = RunFiles(**{**vars(run), "forgetting": {}})
    found = [chart.title for chart in speech_forgetting_charts(alone, Forgetting.read(run))]
    assert found == ["Forgetting while training", "New task against old task, epoch by epoch"]


def test_the_card_is_that_of_a_recogniser(folder: Path) -> None:
    from markdown_it import MarkdownIt

    write_report(folder)
    text = (folder / "model_card.md").read_text()
    for words in ("Write down what is said", "29 tokens", "15 min 0 s of speech, 8 speakers", "Normaliser of the texts",
                  "| WER | 0.", "path/to/a/recording.wav", "General speech got worse"):  # fmt: skip
        assert words in text, words
    for words in ("classes", "temperature", "threshold", "Groups"):
        assert words not in text, words
    html = MarkdownIt().enable("table").render(text)
    assert html.count("<table>") == 1
    assert "<li>train: 120 utterances" in html.replace("<p>", "").replace("\n", "")


def test_a_classifiers_page_has_nothing_of_this(tmp_path: Path) -> None:
    folder = make_test(make_fit(tmp_path / "run"), pictures=False)
    text = write_report(folder, audio=True).read_text()
    for word in (".aligned", "<audio", "media-src", "WER", "Speakers"):
        assert word not in text, word
    assert item(1.0)["value"] == 1.0
