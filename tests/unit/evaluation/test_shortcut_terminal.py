from __future__ import annotations

from lightning_transfer.evaluation.shortcut_terminal import format_shortcuts
from lightning_transfer.evaluation.shortcuts import Shortcut, ShortcutTable
from lightning_transfer.metrics import Interval

HIGH, LOW = Interval(0.9, 0.8, 0.95, n=40), Interval(0.55, 0.5, 0.6, n=40)


def row(column: str = "site", explains: bool = True) -> Shortcut:
    return Shortcut("frozen", column, "mass", HIGH, HIGH, LOW, Interval(0.3, 0.2, 0.4, n=40), HIGH, explains)


def test_every_row_has_its_numbers_and_a_warning_where_there_is_one() -> None:
    lines = format_shortcuts(ShortcutTable((row(), row("sex", explains=False)))).splitlines()
    assert lines[1].split()[:2] == ["features", "column"]
    assert lines[2].count("0.900 [0.800, 0.950]") == 3
    assert "0.550 [0.500, 0.600]" in lines[2]
    assert lines[2].endswith("may explain the label")
    assert not lines[3].rstrip().endswith("label")


def test_what_is_not_shown_is_counted_and_what_was_not_probed_is_named() -> None:
    table = ShortcutTable((row(),) * 5, {"view (frozen features)": "all records have `PA`"}, ("A note.",))
    text = format_shortcuts(table, most=2)
    assert text.count("0.550") == 2
    assert "3 further rows are in evaluation.json." in text
    assert text.endswith("A note.\nNot probed: view (frozen features): all records have `PA`.")


def test_without_columns_nothing_is_said() -> None:
    assert format_shortcuts(None) == ""
    assert format_shortcuts(ShortcutTable()) == ""
    assert format_shortcuts(ShortcutTable((), {"site": "why"})) == "Not probed: site: why."
