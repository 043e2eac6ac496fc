"""How a CTC head begins: with the rows of a pretrained head where both have the token."""

from __future__ import annotations

import torch
from torch import nn

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import listing

__all__ = ["matching_tokens", "start_head"]


def matching_tokens(vocabulary: CTCVocabulary, pretrained: CTCVocabulary) -> dict[int, int]:
    """Say which row of a pretrained head stands for the same as each row of a new one.

    Blank, word delimiter and unknown are matched by what they mean, other tokens as they are written, or else in the
    other case where nothing else has it: many pretrained vocabularies have capitals alone.

    Returns:
        New row -> pretrained row; rows without a counterpart are left out.

    Example:
        >>> new = CTCVocabulary(("<pad>", "|", "a", "ä"))
        >>> matching_tokens(new, CTCVocabulary(("[PAD]", "A", " "), blank="[PAD]", word_delimiter=" "))
        {0: 0, 1: 2, 2: 1}
    """
    old = {token: row for row, token in enumerate(pretrained.tokens)}
    roles = {
        vocabulary.blank: pretrained.blank,
        vocabulary.word_delimiter: pretrained.word_delimiter,
        **({vocabulary.unknown: pretrained.unknown} if vocabulary.unknown and pretrained.unknown else {}),
    }
    special = {pretrained.blank, pretrained.word_delimiter, pretrained.unknown}
    found = {row: old[roles[token]] for row, token in enumerate(vocabulary.tokens) if token in roles}
    for row, token in enumerate(vocabulary.tokens):
        if row not in found and token in old and token not in special:
            found[row] = old[token]
    for row, token in enumerate(vocabulary.tokens):
        if row in found or len(token) > 1:
            continue
        others = [old[case] for case in (token.upper(), token.lower()) if case in old and case not in special]
        if others and others[0] not in found.values():
            found[row] = others[0]
    return found


def start_head(head: nn.Linear, vocabulary: CTCVocabulary, pretrained: nn.Linear, known: CTCVocabulary) -> str:
    """Begin a CTC head, in place, with what a pretrained one knows.

    Args:
        head: New; its rows are in the order of ``vocabulary``.
        vocabulary: Of the new head.
        pretrained: The head of the checkpoint.
        known: Its vocabulary.

    Returns:
        What was done, as a sentence.
    """
    rows = matching_tokens(vocabulary, known)
    new, old = list(rows), list(rows.values())
    with torch.no_grad():
        head.weight[new] = pretrained.weight[old].to(head.weight)
        if head.bias is not None:
            head.bias[new] = 0.0 if pretrained.bias is None else pretrained.bias[old].to(head.bias)
    total = len(vocabulary.tokens)
    if vocabulary == known:
        return f"The vocabulary is the checkpoint's: its head of {total} tokens is the start."
    changed = [
        f"{token} from {known.tokens[rows[row]]}"
        for row, token in enumerate(vocabulary.tokens)
        if row in rows and token != known.tokens[rows[row]]
    ]
    fresh = [token for row, token in enumerate(vocabulary.tokens) if row not in rows]
    gone = [token for row, token in enumerate(known.tokens) if row not in rows.values()]
    parts = [f"{len(rows)} of {total} tokens begin with the checkpoint's rows"]
    if changed:
        parts.append(f"under another name: {listing(changed, 8)}")
    parts.append(f"new: {listing(fresh, 20)}" if fresh else "none is new")
    if gone:
        parts.append(f"of the checkpoint's are left out: {listing(gone, 20)}")
    return f"The vocabulary differs from the checkpoint's: {'; '.join(parts)}."
