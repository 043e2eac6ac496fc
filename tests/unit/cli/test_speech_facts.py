from lightning_transfer.cli.speech_facts import speech_facts
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record


def test_each_split_has_its_own_hours_speakers_and_counts() -> None:
    records = [
        Record(
            "a", AudioSegment("a.wav", 1.0, 2.5), split="train", group="ann", meta={"accent": "uk", "duration": 9.0}
        ),
        Record("b", AudioSegment("b.wav"), split="train", group="ann", meta={"accent": "us", "duration": 4}),
        Record("c", AudioSegment("c.wav"), split="train", group="bob", meta={"accent": "uk"}),
        Record("d", AudioSegment("d.wav"), split="test", meta={"accent": "", "duration": 1.0}),
        Record("e", AudioSegment("e.wav"), meta={"accent": "au"}),
    ]
    found = speech_facts(records, ["accent", "duration", "nothing"])
    assert list(found) == ["train", "test"]
    assert found["train"] == {
        "utterances": 3,
        "seconds": 6.5,
        "unknown": 1,
        "speakers": 2,
        "columns": {"accent": {"uk": 2, "us": 1}},
    }
    assert found["test"] == {
        "utterances": 1,
        "seconds": 1.0,
        "unknown": 0,
        "speakers": None,
        "columns": {"accent": {}},
    }


def test_a_column_of_names_is_left_out() -> None:
    records = [Record(str(i), AudioSegment("a.wav"), split="val", meta={"call": i, "line": i % 2}) for i in range(60)]
    assert list(speech_facts(records, ["call", "line"])["val"]["columns"]) == ["line"]


def test_no_records_no_facts() -> None:
    assert speech_facts([]) == {}
