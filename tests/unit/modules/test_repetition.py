"""What counts as a loop, and what people say."""

import zlib

import pytest

from lightning_transfer.modules.repetition import compression_ratio, repeats_itself

SPOKEN = [
    "",
    "yes",
    "no no no no",
    "my number is double seven seven seven nine zero",
    "thank you thank you very much",
    "I would like to change the address on my account, and then I would like to ask about the last invoice, "
    "which I think has the wrong address on it, because I moved in March and told you so at the time.",
]
LOOPS = [
    "thank you " * 4,
    "I am sorry, " * 3 + "I am",
    "and so on " * 3,
    "la" * 100,
    "please hold the line and wait " * 3,
    "well " + "he said " * 5,
]


@pytest.mark.parametrize("text", SPOKEN)
def test_what_people_say_is_no_loop(text: str) -> None:
    assert not repeats_itself(text)


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_found_wherever_they_stand(text: str) -> None:
    assert repeats_itself(text)
    assert repeats_itself(f"Good morning, {text} and goodbye.")


def test_the_ratio_is_that_of_whispers_own_code() -> None:
    text = SPOKEN[-1]
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode()))
