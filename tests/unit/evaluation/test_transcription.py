"""Tests of judging recognised speech, by counts made here and by resampling written out."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.transcription import RecogniserOutputs, evaluate_transcription
from lightning_transfer.speech import Transcript
from tests.unit.evaluation.speech_toys import SCHEMA, heard, plain, utterances

pytest.importorskip("jiwer")

RECORDS = utterances()
HEARD = heard(RECORDS)


def distance(said: list[str], found: list[str]) -> int:
    row = list(range(len(found) + 1))
    for i, left in enumerate(said, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(found, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def judge(transcripts=HEARD, records=RECORDS, **options):
    given = {"normalise": plain, "normaliser": "plain", "n_resamples": 200, **options}
    return evaluate_transcription(transcripts, records, SCHEMA, **given)


def counted(split, change=plain) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (split(change(record.label)), split(change(item.text))) for record, item in zip(RECORDS, HEARD, strict=True)
    ]
    return np.array([distance(*pair) for pair in pairs]), np.array([len(said) for said, _ in pairs])


def test_rates_are_all_errors_over_all_words() -> None:
    result = judge()
    for name, split, change in (
        ("wer", str.split, plain),
        ("cer", list, plain),
        ("wer_raw", str.split, str),
        ("cer_raw", list, str),
    ):
        errors, lengths = counted(split, change)
        assert result.metrics[name].value == pytest.approx(errors.sum() / lengths.sum()), name
    errors, lengths = counted(str.split)
    found = {name: result.metrics[f"{name}_rate"].value for name in ("substitution", "insertion", "deletion")}
    assert sum(found.values()) == pytest.approx(result.metrics["wer"].value)
    assert result.metrics["sentence_error_rate"].value == pytest.approx((errors > 0).mean())
    silent = sum(not item.text for item in HEARD)
    assert 0 < silent
    assert result.metrics["blank_share"].value == pytest.approx(silent / len(RECORDS))
    assert result.num_problems == {"only blanks": silent}
    assert (result.n, result.num_groups, result.words.length) == (48, 8, lengths.sum())
    assert result.headline == next(iter(result.metrics)) == "wer"


def test_the_interval_draws_whole_speakers() -> None:
    errors, lengths = counted(str.split)
    by_speaker = [(errors[start : start + 6].sum(), lengths[start : start + 6].sum()) for start in range(0, 48, 6)]
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(4000):
        drawn = [by_speaker[place] for place in rng.integers(0, 8, size=8)]
        rates.append(sum(wrong for wrong, _ in drawn) / sum(words for _, words in drawn))
    found = judge(n_resamples=4000).metrics["wer"]
    assert [found.low, found.high] == pytest.approx(np.quantile(rates, [0.025, 0.975]), abs=0.01)
    assert (found.n, found.num_groups) == (48, 8)


def test_differences_are_paired_on_the_same_draws() -> None:
    worse = [item._replace(text=f"{item.text} noise") for item in HEARD]
    result = judge(baselines={"before": RecogniserOutputs(worse, "another one"), "same": RecogniserOutputs(HEARD, "")})
    errors, lengths = counted(str.split)
    pairs = zip(RECORDS, worse, strict=True)
    theirs = np.array([distance(plain(record.label).split(), item.text.split()) for record, item in pairs])
    found = result.differences["before"]["wer"]
    assert found.value == pytest.approx((errors.sum() - theirs.sum()) / lengths.sum())
    assert found.high < 0
    assert result.differences["same"]["wer"].low == result.differences["same"]["wer"].high == 0.0
    assert result.baselines["before"]["wer"].value > result.metrics["wer"].value
    assert result.flat()["wer_minus_before"]["value"] == found.value


def test_a_baseline_that_cannot_be_run_says_why() -> None:
    result = judge(baselines={"pretrained": RecogniserOutputs(None, "the card has no vocabulary")})
    assert str(result.baselines["pretrained"]["wer"]) == "n/a (the card has no vocabulary)"
    assert "pretrained" not in result.differences


def test_speakers_are_judged_by_their_own_utterances() -> None:
    result = judge(baselines={"before": RecogniserOutputs([item._replace(text="") for item in HEARD], "deaf")})
    errors, lengths = counted(str.split)
    rates = {f"s{place}": errors[6 * place :][:6].sum() / lengths[6 * place :][:6].sum() for place in range(8)}
    assert {item.speaker: item.wer.value for item in result.speakers} == pytest.approx(rates)
    assert [item.wer.value for item in result.speakers] == sorted(rates.values(), reverse=True)
    first = result.speakers[0]
    assert (first.n, first.wer.n, first.wer.num_groups) == (6, 6, 6)
    assert first.wer.low < first.wer.value < first.wer.high
    assert first.words.rate == pytest.approx(first.wer.value)
    assert first.baselines["before"].value == 1.0
    assert first.differences["before"].value == pytest.approx(first.wer.value - 1.0)
    assert {item.speaker for item in first.worst} == {first.speaker}
    assert result.speakers[-1].worst == ()
    assert result.flat()["wer_worst_speaker"]["value"] == first.wer.value


def test_slices_by_accent_and_duration() -> None:
    result = judge(n_resamples=500)
    errors, lengths = counted(str.split)
    is_b = np.array([record.meta["accent"] == "b" for record in RECORDS])
    found = {(item.column, item.value): item for item in result.slices.slices}
    assert found["accent", "b"].metrics["wer"].value == pytest.approx(errors[is_b].sum() / lengths[is_b].sum())
    rest = errors[~is_b].sum() / lengths[~is_b].sum()
    assert found["accent", "b"].difference.value == pytest.approx(found["accent", "b"].metrics["wer"].value - rest)
    assert result.slices.slices[0].value == "b"  # the higher rate comes first
    assert sum(column == "duration" for column, _ in found) == 4
    assert sum(item.n for item in result.slices.slices if item.column == "duration") == 48
    assert result.slices.left_out == {"channel": "all records have `line`"}
    assert judge(slices=["accent"]).slices.left_out == {}
    assert judge(slices=[]).slices.slices == ()


def test_keywords_have_recall_and_false_alarms() -> None:
    result = judge(keywords=["Acme", "acme", "please order", "zebra"])
    said = sum(plain(record.label).split().count("acme") for record in RECORDS)
    counts = [
        (Counter(plain(record.label).split())["acme"], Counter(item.text.split())["acme"])
        for record, item in zip(RECORDS, HEARD, strict=True)
    ]
    acme, _, zebra = result.keywords
    assert (acme.keyword, acme.said) == ("acme", said)
    assert acme.recognised == sum(min(pair) for pair in counts)
    assert acme.false_alarms == sum(max(0, found - true) for true, found in counts)
    assert acme.recall.value == pytest.approx(acme.recognised / said)
    assert acme.recall.n == sum(true > 0 for true, _ in counts)
    assert str(zebra.recall) == "n/a (it is never said)"
    total = sum(item.recognised for item in result.keywords) / sum(item.said for item in result.keywords)
    assert result.metrics["keyword_recall"].value == pytest.approx(total)
    with pytest.raises(ValueError, match=r"'\.'"):
        judge(keywords=["."])


def test_worst_utterances_carry_their_alignment() -> None:
    result = judge(most_worst=3)
    errors, _ = counted(str.split)
    assert [item.counts.errors for item in result.worst] == sorted(errors, reverse=True)[:3]
    first = result.worst[0]
    record = next(record for record in RECORDS if record.id == first.id)
    assert [word for part in first.parts for word in part.reference] == plain(record.label).split()
    assert (first.path, first.start, first.duration) == (record.input.path, 0.5, record.input.duration)
    assert first.reference == record.label
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.to_dict()["worst"][0]["wer"] == pytest.approx(first.counts.rate)


def test_confusions_are_counted() -> None:
    result = judge()
    assert {item.heard for item in result.confusions[:3]} == {"wrong"}
    assert sum(item.n for item in result.confusions) == result.words.substitutions
    assert result.confusions[0].n >= result.confusions[-1].n


def test_references_without_words_have_no_rate_and_their_insertions_count() -> None:
    records = [*RECORDS[:6], replace(RECORDS[6], label="...")]
    result = judge([*heard(RECORDS)[:6], Transcript(6, "ghost words", 0.5, 1.0)], records)
    alone = judge(HEARD[:6], RECORDS[:6])
    assert result.num_empty == 1
    assert result.words.insertions == alone.words.insertions + 2
    assert result.words.length == alone.words.length
    assert any("2 words recognised in them" in note for note in result.notes)
    empty = judge([Transcript(0, "ghost", 0.5, 1.0)], [replace(RECORDS[0], label="...")])
    assert str(empty.metrics["wer"]) == "n/a (no reference has words)"
    assert empty.words.insertions == 1


def test_a_rate_above_one_stays() -> None:
    result = judge([item._replace(text="no no no no no no no no") for item in HEARD])
    assert result.metrics["wer"].value > 1


def test_unlabelled_records_and_what_was_not_run_are_left_out() -> None:
    records = [replace(record, label=None if place % 2 else record.label) for place, record in enumerate(RECORDS)]
    result = judge(HEARD[:40], records)
    assert (result.n, result.num_unlabelled) == (20, 20)
    with pytest.raises(TransferError, match="None of the 48 records"):
        judge(HEARD, [replace(record, label=None) for record in RECORDS])
    with pytest.raises(TransferError, match="record 47, and the split has 40"):
        judge(HEARD, RECORDS[:40])
    with pytest.raises(TransferError, match="`other` was run on other records"):
        judge(baselines={"other": RecogniserOutputs(HEARD[:3], "")})
    with pytest.raises(TransferError, match="join_transcripts"):
        judge([HEARD[0]._replace(num_pieces=2)], RECORDS)


def test_few_speakers_and_unknown_ones_are_said() -> None:
    assert any("2 speakers: with fewer than 5" in note for note in judge(HEARD[:12], RECORDS[:12]).notes)
    result = judge(records=[replace(record, group=None) for record in RECORDS])
    assert result.num_groups == 48
    assert result.speakers == ()
    assert any("48 of 48 utterances have no speaker" in note for note in result.notes)
    right = [item._replace(text=plain(record.label)) for item, record in zip(HEARD, RECORDS, strict=True)]
    assert any("no error" in note for note in judge(right).notes)


def test_speed_is_decoding_over_sound() -> None:
    result = judge(decoding_seconds=3.0, device="cpu")
    sound = sum(item.seconds for item in HEARD)
    assert result.metrics["real_time_factor"].value == pytest.approx(3.0 / sound)
    assert "measured once on cpu" in result.metrics["real_time_factor"].reason
    assert result.seconds_of_audio == pytest.approx(sound)
    silent = judge([item._replace(seconds=0.0) for item in HEARD], decoding_seconds=3.0)
    assert str(silent.metrics["real_time_factor"]) == "n/a (there is no sound)"
    assert "real_time_factor" not in judge().metrics
