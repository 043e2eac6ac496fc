"""The shortcut probe as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.evaluation.shortcuts import ShortcutTable
from lightning_transfer.evaluation.terminal import align

__all__ = ["format_shortcuts"]


def format_shortcuts(table: ShortcutTable | None, most: int = 8) -> str:
    """Return what the features tell of each column, and what the column tells of the label; empty without columns.

    Args:
        table: Of `evaluate_shortcuts`.
        most: Rows to show; those that explain a label come first.

    Example:
        >>> from lightning_transfer.evaluation.shortcuts import Shortcut
        >>> from lightning_transfer.metrics import Interval
        >>> high, low = Interval(0.9, 0.8, 1.0, n=40), Interval(0.5, 0.4, 0.6, n=40)
        >>> row = Shortcut("frozen", "site", "covid", high, high, low, Interval(0.4, 0.2, 0.5, n=40), high, True)
        >>> print(format_shortcuts(ShortcutTable((row,))).splitlines()[0])
        Shortcuts: AUROC of columns by features, and of findings by columns
    """
    if table is None or not (table.shortcuts or table.left_out):
        return ""
    lines = ["Shortcuts: AUROC of columns by features, and of findings by columns"] if table.shortcuts else []
    rows: list[tuple[str, ...]] = [
        ("features", "column", "told by features", "finding", "by the column", "by features", "within the same", "")
    ]
    for item in table.shortcuts[:most]:
        numbers = (str(item.alone), str(item.own), str(item.within))
        said = "may explain the label" if item.explains else ""
        rows.append((item.features, item.column, str(item.told), item.finding, *numbers, said))
    if table.shortcuts:
        lines += align(rows)
    if len(table.shortcuts) > most:
        lines.append(f"{len(table.shortcuts) - most} further rows are in evaluation.json.")
    lines += table.notes
    return "\n".join([*lines, *(f"Not probed: {column}: {reason}." for column, reason in table.left_out.items())])
