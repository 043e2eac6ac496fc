"""From a cleaned text to rows of token ids. No torch: this file travels with exported models."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["MAX_CHUNKS", "LongTexts", "open_tokenizer", "token_rows"]

LongTexts = Literal["head", "head_tail", "chunks"]

MAX_CHUNKS = 8
"""Of one text that the backbone sees, its beginning and its end: a log file of a megabyte must not fill the memory."""

_HEAD_SHARE = 0.25


def open_tokenizer(text: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    """Return the tokenizer of a ``tokenizer.json`` without its own padding and cutting.

    Special words that stand in a text, such as ``[SEP]``, are read as letters: a ticket cannot end its own text.
    """
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    made.no_padding()
    made.no_truncation()
    made.encode_special_tokens = True
    return made


def token_rows(tokenizer: Any, text: str, max_length: int, long_texts: LongTexts) -> list[list[int]]:  # noqa: ANN401
    """Return the token ids of a text, special ones included, in one row, or with ``chunks`` in several.

    Args:
        tokenizer: Of `open_tokenizer`.
        text: Cleaned.
        max_length: Tokens in a row, special ones included.
        long_texts: What happens to longer texts: ``head`` keeps the beginning; ``head_tail`` a quarter from the
            beginning and three quarters from the end; ``chunks`` cuts them into up to 8 rows.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> made = Tokenizer(models.WordLevel({"[UNK]": 0, **{str(n): n for n in range(1, 9)}}, "[UNK]"))
        >>> made.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> [token_rows(made, "1 2 3 4 5 6 7", 4, rule) for rule in ("head", "head_tail", "chunks")]
        [[[1, 2, 3, 4]], [[1, 5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7]]]
    """
    begin, body, end = _parts(tokenizer.encode(text))
    room = max_length - len(begin) - len(end)
    if long_texts == "chunks":
        return [[*begin, *part, *end] for part in _chunks(body, room)]
    if len(body) > room:
        head = room if long_texts == "head" else int(room * _HEAD_SHARE)
        body = [*body[:head], *body[len(body) - (room - head) :]]
    return [[*begin, *body, *end]]


def _parts(found: Any) -> tuple[list[int], list[int], list[int]]:  # noqa: ANN401 - tokenizers.Encoding
    """Return the special tokens before the text, its own, and those behind."""
    special = found.special_tokens_mask
    first = next((place for place, is_special in enumerate(special) if not is_special), None)
    if first is None:  # an empty text: the special tokens alone
        return list(found.ids), [], []
    last = len(special) - next(place for place, is_special in enumerate(reversed(special)) if not is_special)
    return list(found.ids[:first]), list(found.ids[first:last]), list(found.ids[last:])


def _chunks(body: list[int], room: int) -> list[list[int]]:
    """Cut into parts of at most ``room`` tokens; of very long texts the first and the last are kept."""
    parts = [body[start : start + room] for start in range(0, len(body), room)] or [[]]
    if len(parts) > MAX_CHUNKS:
        half = MAX_CHUNKS // 2
        parts = [*parts[:half], *parts[-half:]]
    return parts
