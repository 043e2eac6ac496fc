import pytest

from lightning_transfer.cli.verbs import VERBS


def test_every_verb_of_the_list_exists_and_no_other() -> None:
    assert list(VERBS) == ["fit", "validate", "test", "predict", "plan", "check-data", "configs", "copy"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_can_be_loaded(name: str) -> None:
    assert callable(VERBS[name].load())
    assert VERBS[name].help
