import dataclasses

import pytest

from lightning_transfer.speech import AudioSegment, Transcript


def test_a_segment_is_read_as_its_path() -> None:
    segment = AudioSegment("calls/a.wav", start=2.0, duration=1.5, channel=1)
    assert str(segment) == "calls/a.wav"
    assert segment != AudioSegment("calls/a.wav", start=2.0, duration=1.5)


def test_what_was_heard_does_not_change() -> None:
    heard = Transcript(3, "hello", 0.9, 1.2)
    assert heard.problem == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        heard.text = "other"  # type: ignore[misc]
