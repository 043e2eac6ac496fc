from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import item, make_fit, make_test
from make_speech_run import make_records, make_speech_fit, make_speech_test, make_story

from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.speech_verdict import general_sentence, speech_verdict, verdict_of
from lightning_transfer.reporting.verdict import verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    folder = make_speech_test(make_speech_fit(tmp_path_factory.mktemp("calls") / "run"), sound=False)
    return RunFiles.read(folder)


def said(run: RunFiles, **scores: Any) -> tuple[str, str, str, str]:
    known = Scores.read(run)
    assert known is not None
    found = speech_verdict(run, replace(known, **scores), Forgetting.read(run))
    return (*found.sentences, found.tone)


def differing(low: float, high: float) -> dict[str, Any]:
    return {"differences": {"pretrained": {"wer": item((low + high) / 2, low, high)}}}


def test_what_adapting_did(run: RunFiles) -> None:
    first, _, _, tone = said(run)
    scores = Scores.read(run)
    assert scores is not None
    assert tone == "better"
    assert first.startswith(f"Adapting helps: WER {scores.baselines['pretrained']['wer']['value']:.3f} [")
    assert f"and {scores.metrics['wer']['value']:.3f} [" in first
    assert "after on 48 test utterances of 6 speakers, paired difference -0." in first
    assert said(run, **differing(0.01, 0.1))[0].startswith("Adapting made it worse: WER")
    assert said(run, **differing(0.01, 0.1))[3] == "worse"
    open_, *_, tone = said(run, **differing(-0.1, 0.1))
    assert open_.startswith("Adapting is not shown to help")
    assert open_.endswith("which includes 0.")
    assert tone == "open"
    several = {"pretrained": {"wer": item(-0.2, -0.3, -0.1)}, "scratch": {"wer": item(0.0, -0.1, 0.1)}}
    assert "not shown to be better than: from scratch." in said(run, differences=several)[0]
    no_interval = {"pretrained": {"wer": item(-0.2, reason="1 group, and an interval needs at least 2")}}
    assert "1 group, and an interval needs at least 2." in said(run, differences=no_interval)[0]


def test_what_it_was_before_may_be_unknown(run: RunFiles) -> None:
    assert "is not measured; run `python -m recipes.speech test RUN`" in said(run, baselines={}, differences={})[0]
    reasons = {"pretrained": {"wer": item(None, reason="it has another alphabet")}}
    first, *_, tone = said(run, baselines=reasons, differences={})
    assert first.endswith("what it was before adapting could not be measured: it has another alphabet.")
    assert tone == "open"


@pytest.mark.parametrize(
    ("change", "begin"),
    [
        (item(0.03, 0.01, 0.05), "General speech got worse: WER 0.050 [0.030, 0.070] before and 0.080 after"),
        (item(-0.03, -0.05, -0.01), "General speech got no worse:"),
        (item(0.0, -0.01, 0.01), "No sure loss on general speech:"),
    ],
)
def test_what_became_of_general_speech(change: dict[str, Any], begin: str) -> None:
    parts = {"before": item(0.05, 0.03, 0.07), "after": item(0.08), "change": change}
    bare = RunFiles(Path("x"))
    assert general_sentence(bare, Forgetting({"source wer": parts})).startswith(begin)
    named = general_sentence(bare, Forgetting({"source news wer": parts, "source calls wer": parts}))
    assert "(news)" in named
    assert "(calls)" in named
    budget = replace(bare, forgetting=make_story(monitors=[]))
    assert general_sentence(budget, Forgetting({"source wer": parts})).endswith("the best within the budget of 0.020.")


def test_general_speech_that_was_not_listened_to() -> None:
    bare = RunFiles(Path("x"))
    assert "`data.general_file`" in general_sentence(bare, Forgetting())
    assert "the backbone was frozen" in general_sentence(bare, Forgetting(frozen=True))
    missing = {"before": item(0.05), "after": item(None, reason="not measured with these weights"), "change": {}}
    assert "(not measured with these weights)" in general_sentence(bare, Forgetting({"source wer": missing}))


def test_where_to_look_first(run: RunFiles, tmp_path: Path) -> None:
    look = said(run)[2]
    assert look.startswith("Look first at: speaker “finn”, WER 0.")
    assert "keyword “" in look
    # Two utterances in which nothing was heard, and nothing else wrong.
    folder = make_speech_fit(tmp_path / "run")
    records = make_records(folder.parent / "data")
    texts = ["" if place < 2 else str(record.label) for place, record in enumerate(records)]
    silent = RunFiles.read(make_speech_test(folder, records, texts=texts, sound=False))
    look = said(silent)[2]
    assert look.startswith("Look first at: the 2 of 48 utterances in which nothing was heard; speaker “ann”")
    assert "deletions, words that were not heard: 19 of 19 errors" in look
    perfect = make_speech_fit(tmp_path / "perfect")
    right = make_speech_test(perfect, records, texts=[str(record.label) for record in records], sound=False)
    assert said(RunFiles.read(right))[2].startswith("No word was wrong")
    assert said(replace(run, evaluation={}), slices=(), metrics={})[2] == "Where the errors lie was not measured."


def test_a_slice_that_stands_out_is_named(run: RunFiles) -> None:
    row = {"column": "accent", "value": "scottish", "n": 40, "stands_out": True, "small": False,
           "difference": item(0.2, 0.1, 0.3), "metrics": {"wer": item(0.4, 0.3, 0.5)}}  # fmt: skip
    assert "accent “scottish”, WER 0.400 [0.300, 0.500] on 40 utterances" in said(run, slices=(row,))[2]
    better = {**row, "difference": item(-0.2, -0.3, -0.1)}
    assert "scottish" not in said(run, slices=(better,))[2]


def test_notes(run: RunFiles) -> None:
    known = Scores.read(run)
    assert known is not None
    differences = {"pretrained": {"wer": item(-0.1, -0.2, -0.05), "keyword_recall": item(-0.2, -0.3, -0.1)}}
    loud = replace(known, metrics={**known.metrics, "wer": item(1.25, 1.0, 1.5)}, differences=differences)
    notes = speech_verdict(replace(run, num_tests=2), loud, Forgetting()).notes
    assert "Few data: with 6 speakers the intervals are rather too narrow than too wide." in notes
    assert "The WER is above 1: there are more errors than words that were said." in notes
    assert "By keyword recall it was better before adapting: now minus before -0.200 [-0.300, -0.100]." in notes
    assert any("read 2 times" in note for note in notes)
    poor = replace(known, metrics={**known.metrics, "wer": item(0.75, 0.7, 0.8)})
    assert any("More than half of the words are wrong" in n for n in speech_verdict(run, poor, Forgetting()).notes)


def test_before_the_test_nothing_is_claimed(tmp_path: Path) -> None:
    run = RunFiles.read(make_speech_fit(tmp_path / "run"))
    found = verdict_of(run, None, Forgetting.read(run))
    assert found.tone == "open"
    assert found.sentences[0].startswith("Not measured: the test split was not read yet; run `python -m recipes.speech")
    assert found.sentences[1].startswith("General speech got worse")


def test_other_tasks_have_their_own_verdict(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run"), pictures=False))
    scores, forgetting = Scores.read(run), Forgetting.read(run)
    assert verdict_of(run, scores, forgetting) == verdict(scores, forgetting, command=run.command, num_tests=1)
