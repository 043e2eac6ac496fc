import pytest
from lightning.fabric.utilities.apply_func import move_data_to_device

from lightning_transfer.speech import AudioSegment, Transcript


def test_a_segment_is_read_as_its_path() -> None:
    segment = AudioSegment("calls/a.wav", start=2.0, duration=1.5, channel=1)
    assert str(segment) == "calls/a.wav"
    assert segment != AudioSegment("calls/a.wav", start=2.0, duration=1.5)


def test_what_was_heard_does_not_change() -> None:
    heard = Transcript(3, "hello", 0.9, 1.2)
    assert heard.problem == ""
    with pytest.raises(AttributeError):
        heard.text = "other"  # type: ignore[misc]


def test_lightning_moves_what_was_heard() -> None:
    heard = [Transcript(3, "hello", None, 1.2, words=(("hello", 0.0, 1.0),))]
    assert move_data_to_device(heard, "cpu") == heard
