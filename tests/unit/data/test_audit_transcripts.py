"""Findings on transcripts: what a model cannot write, with the characters and examples."""

from dataclasses import replace

import pytest

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.audit_transcripts import keyword_findings, transcript_findings
from lightning_transfer.data.transcripts import CTCVocabulary, normaliser
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

pytest.importorskip("transformers")
SPEC = AudioPreprocessing(
    {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16_000},
    vocabulary=CTCVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"]),
)


def _rows(*texts: str | None, seconds: float = 5.0) -> list[Record]:
    return [
        Record(f"r{i}", None, text, ("train", "test")[i % 2], meta={"duration": seconds})
        for i, text in enumerate(texts)
    ]


def _found(records: list[Record], spec: AudioPreprocessing = SPEC) -> dict[str, Finding]:
    return {finding.code: finding for finding in transcript_findings(records, spec)}


def test_plain_transcripts_have_a_note() -> None:
    found = _found(_rows("Hello, you.", "Well", None))
    assert set(found) == {"transcript-lengths"}
    assert "2 transcripts of 1 to 2 words (median 2), 1.3 letters a second" in found["transcript-lengths"].message
    assert transcript_findings(_rows(None), SPEC) == []


def test_characters_outside_are_counted_most_frequent_first() -> None:
    records = _rows(*["hello"] * 30, "caf\u00e9 \u00e9 7")
    finding = _found(records)["outside-vocabulary"]
    assert (finding.severity, finding.count) == ("note", 3)
    assert finding.examples == ("\u00e9 (r30)", "7 (r30)")
    assert "1 of 31 transcripts have characters that the model cannot write (`\u00e9` 2, `7` 1)" in finding.message
    assert _found(_rows("h\u00e9", "ho"))["outside-vocabulary"].severity == "warning"
    unknown = CTCVocabulary((*SPEC.vocabulary.tokens, "<unk>"), unknown="<unk>")
    assert "`<unk>` in them" in _found(records, replace(SPEC, vocabulary=unknown))["outside-vocabulary"].message
    assert "outside-vocabulary" not in _found(records, replace(SPEC, vocabulary=None))


def test_texts_longer_than_their_frames_are_counted_in_each_split() -> None:
    records = [*_rows("help me now please " * 9, "help me " * 20, seconds=1.0), *_rows("me")]
    finding = _found(records)["too-long-for-sound"]
    assert (finding.count, finding.severity) == (2, "warning")
    assert "(train 1, test 1)" in finding.message
    assert finding.examples[0] == "r0 (171 letters in 1.00 s)"


def test_texts_of_more_tokens_than_a_tokenizer_model_writes_are_counted() -> None:
    from tests.unit.data.test_audio_preprocessing import _tokenizer_json

    whisper = replace(SPEC, vocabulary=None, tokenizer_json=_tokenizer_json(), max_label_tokens=3)
    finding = _found(_rows("hello you", "hello you hello you"), whisper)["too-long-for-sound"]
    assert "1 of 2 transcripts are longer than the 3 tokens that the model writes of one recording" in finding.message


def test_phrases_that_training_has_are_counted() -> None:
    finding = _found(_rows("Hello!", "hello", "well", "you", "me", "WELL"))["known-transcripts"]
    assert (finding.severity, finding.count) == ("note", 2)
    assert "2 of 3 test transcripts (67%) are word for word in `train` too" in finding.message
    assert finding.examples == ("r1 (hello)", "r5 (well)")


def test_what_normalising_empties_has_no_error_rate() -> None:
    finding = _found(_rows("...", "hello", "?!"))["empty-after-normalising"]
    assert finding.examples == ("r0", "r2")


def test_keywords_are_whole_words_after_normalising() -> None:
    records = _rows("My ACME card!", "acme's card, my acme.", "acmes")
    (finding,) = keyword_findings(records, ["Acme", "my acme", "zebra"], normaliser("basic"))
    assert finding.severity == "warning"
    assert finding.examples == ("zebra",)
    assert "3 keywords are said 4 times (train 2, test 2)" in finding.message
    (finding,) = keyword_findings(records, ["acme"], normaliser("basic"))
    assert finding.severity == "note"
    assert keyword_findings(records, [], normaliser("basic")) == []
