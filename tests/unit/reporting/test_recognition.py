from pathlib import Path
from typing import Any

import jiwer
import pytest
from make_run import item, write
from make_speech_run import heard, make_records, make_speech_fit, make_speech_test

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.recognition import (
    keywords_section,
    recognition_section,
    recognition_slices,
    speakers_section,
    words_section,
)
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores


def read(folder: Path) -> tuple[RunFiles, Scores, Forgetting]:
    run = RunFiles.read(folder)
    scores = Scores.read(run)
    assert scores is not None
    return run, scores, Forgetting.read(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech_test(make_speech_fit(tmp_path_factory.mktemp("calls") / "run"), sound=False)


def test_the_rates_are_those_of_jiwer_beside_the_recogniser_before_adapting(folder: Path) -> None:
    run, scores, forgetting = read(folder)
    found = recognition_section(scores, run, forgetting)
    records = make_records(folder.parent / "data")
    texts = [heard(str(r.label), 0.15 * (3 if place // 8 == 5 else 1), place) for place, r in enumerate(records)]
    clean = [" ".join("".join(c if c.isalnum() or c == "'" else " " for c in str(r.label).lower()).split())
             for r in records]  # fmt: skip
    assert found["metrics"]["wer"]["value"] == pytest.approx(jiwer.wer(clean, texts))
    assert found["metrics"]["wer_raw"]["value"] == pytest.approx(jiwer.wer([str(r.label) for r in records], texts))
    [row] = found["baselines"]
    assert row["name"] == "before adapting"
    assert row["differences"]["wer"]["shows"] == "better"
    assert found["metrics"]["wer_of_pretrained"] == row["metrics"]["wer"]
    assert (found["metrics"]["source_wer_after"]["value"], found["metrics"]["source_wer_after"]["reason"]) == (
        0.07,
        "by +0.020 [+0.004, +0.040]",
    )
    assert found["cards"] == ["wer", "wer_of_pretrained", "source_wer_before", "source_wer_after", "cer",
                              "keyword_recall"]  # fmt: skip
    words = found["words"]
    wrong = sum(words[kind] for kind in ("substitutions", "insertions", "deletions"))
    assert wrong / (words["hits"] + words["substitutions"] + words["deletions"]) == pytest.approx(
        found["metrics"]["wer"]["value"]
    )


def test_a_recogniser_that_could_not_be_run_says_why(folder: Path, tmp_path: Path) -> None:
    run, scores, forgetting = read(folder)
    reasons = {"wer": item(None, reason="it has another alphabet")}
    changed = Scores(**{**vars(scores), "baselines": {"pretrained": reasons}, "differences": {}})
    found = recognition_section(changed, run, forgetting)
    assert found["baselines"] == []
    assert found["unrun"] == [{"name": "before adapting", "reason": "it has another alphabet"}]
    assert "wer_of_pretrained" not in found["metrics"]
    alone = make_speech_test(make_speech_fit(tmp_path / "run"), before=None, sound=False)
    run, scores, forgetting = read(alone)
    assert "--evaluation.baselines" in recognition_section(scores, run, forgetting)["baseline_hint"]


def test_two_general_sets_have_no_card(folder: Path) -> None:
    run, scores, _ = read(folder)
    parts = {"before": item(0.1), "after": item(0.2), "change": item(0.1)}
    found = recognition_section(scores, run, Forgetting({"source news wer": parts, "source calls wer": parts}))
    assert not [name for name in found["cards"] if name.startswith("source")]


def test_keywords_come_with_the_lowest_recall_first(folder: Path, tmp_path: Path) -> None:
    run, _, _ = read(folder)
    rows = keywords_section(run)["rows"]
    assert {row["keyword"] for row in rows} == {"acme plus", "router", "order number"}
    recalls = [row["recall"]["value"] for row in rows]
    assert recalls == sorted(recalls)
    without = make_speech_test(make_speech_fit(tmp_path / "run"), keywords=(), sound=False)
    assert "--evaluation.keywords" in keywords_section(RunFiles.read(without))["missing"]


def test_words_say_what_was_taken_for_what_and_what_the_normaliser_changed(folder: Path) -> None:
    run, scores, _ = read(folder)
    found = words_section(scores, run)
    assert found["confusions"][0]["n"] >= found["confusions"][-1]["n"]
    assert found["num_in_confusions"] <= found["num_substitutions"]
    changes = {row["before"]: row["after"] for row in found["normalised"]}
    assert changes["Maya."] == "maya"
    assert found["wer"]["value"] < found["wer_raw"]["value"]


def test_speakers_and_slices_come_with_the_ends_of_their_bars(folder: Path) -> None:
    run, scores, _ = read(folder)
    found = speakers_section(scores, run)
    assert found["rows"][0]["speaker"] == "finn"
    assert found["others"] == [{"key": "pretrained", "name": "before adapting"}]
    assert max(row["wer"]["value"] for row in found["rows"]) <= found["scale"] <= 1
    slices = recognition_slices(scores, run)
    assert [column["name"] for column in slices["columns"]] == ["accent", "channel", "duration"]
    assert slices["columns"][0]["rows"][0]["value"] == "scottish"


def test_without_speakers_the_section_says_so(folder: Path, tmp_path: Path) -> None:
    run, scores, _ = read(folder)
    nobody = RunFiles(**{**vars(run), "evaluation": {**run.evaluation, "speakers": []}})
    assert "--data.speaker_column" in speakers_section(scores, nobody)["missing"]


def test_many_speakers_are_folded_away(tmp_path: Path) -> None:
    folder = make_speech_fit(tmp_path / "run")
    records = make_records(folder.parent / "data", speakers=20, each=2)
    records = [type(r)(**{**vars(r), "group": r.id.split("/")[0]}) for r in records]
    run, scores, _ = read(make_speech_test(folder, records, sound=False))
    found = speakers_section(scores, run)
    assert (len(found["rows"]), len(found["more"])) == (12, 8)


@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}])
def test_strange_parts_of_an_evaluation_are_left_out(folder: Path, tmp_path: Path, value: Any) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    evaluation = {**RunFiles.read(folder).evaluation, "speakers": value, "keywords": value, "confusions": value}
    write(copy / "test" / "evaluation.json", evaluation)
    run, scores, forgetting = read(copy)
    assert recognition_section(scores, run, forgetting)["words"]
    assert speakers_section(scores, run)["rows"] == []
    assert words_section(scores, run)["confusions"] == []
