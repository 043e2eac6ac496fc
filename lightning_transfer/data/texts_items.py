"""What a user of Python calls a text, as the cleaned text that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_tables import cell_text
from lightning_transfer.types import Record

__all__ = ["NO_TEXT", "cleaned_texts"]

NO_TEXT = "nothing is left of the text without HTML and invisible characters"


def cleaned_texts(items: Sequence[Any], cleaning: TextCleaning) -> list[str]:
    r"""Return the text of each item, cleaned; empty where nothing is left.

    Args:
        items: Strings are bodies, plain or HTML; mappings have a ``body``, a ``subject``, or both; None and NaN, as
            tables have them, are empty. The text of a record is taken as it is: `read_tickets` cleaned it.
        cleaning: That of the training.

    Raises:
        TypeError: If an item is something else; names its place.

    Example:
        >>> cleaned_texts(["<p>Dark</p>", {"subject": "Re: Lamp", "body": "Dark"}, None], TextCleaning(phones=False))
        ['Dark', 'Lamp\n\nDark', '']
    """
    return [_cleaned(item, place, cleaning) for place, item in enumerate(items)]


def _cleaned(item: Any, place: int, cleaning: TextCleaning) -> str:  # noqa: ANN401
    if isinstance(item, Record):
        if not isinstance(item.input, str):
            raise TypeError(f"Expected a text in record `{item.id}`, got {type(item.input).__name__}.")
        return item.input if item.input.strip() else ""
    if isinstance(item, Mapping):
        if not item.keys() & {"subject", "body"}:
            raise TypeError(f"Expected `subject` or `body` in item {place}, got {', '.join(map(str, item)) or 'none'}.")
        return cleaning.clean(cell_text(item.get("subject")), cell_text(item.get("body")))[0]
    if item is None or isinstance(item, str | float):
        return cleaning.clean("", cell_text(item))[0]
    raise TypeError(
        f"Expected a text, a mapping with `subject` and `body`, or a record, got {type(item).__name__} (item {place})."
    )
