"""When a model that writes nothing is spoken of."""

from lightning_transfer.modules.ctc_collapse import CollapseWatch


def checks(watch: CollapseWatch, *shares: tuple[float, float]) -> list[str]:
    return [watch.check(blank, empty, rate=1e-3, vocabulary_is_new=True) for blank, empty in shares]


def test_it_is_said_once_after_enough_checks_in_a_row() -> None:
    said = checks(CollapseWatch(patience=3), *[(0.99, 1.0)] * 6)
    assert [bool(text) for text in said] == [False, False, True, False, False, False]
    assert "now 1.0e-03" in said[2]
    assert "no pretrained row" in said[2]


def test_a_model_that_begins_to_write_starts_the_count_anew() -> None:
    said = checks(CollapseWatch(patience=2), (0.99, 1.0), (0.95, 0.5), (0.99, 1.0), (0.99, 0.95))
    assert [bool(text) for text in said] == [False, False, False, True]


def test_many_blanks_are_normal_where_words_are_heard() -> None:
    assert not any(checks(CollapseWatch(patience=1), (0.98, 0.1), (0.5, 1.0)))


def test_undefined_shares_are_no_collapse() -> None:
    assert not any(checks(CollapseWatch(patience=1), (float("nan"), 1.0)))


def test_a_pretrained_head_gets_other_advice() -> None:
    text = CollapseWatch(patience=1).check(1.0, 1.0, rate=None, vocabulary_is_new=False)
    assert "try lower rates first" in text
    assert "now" not in text.split("warm-up")[0]
