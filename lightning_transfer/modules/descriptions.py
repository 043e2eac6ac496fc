"""What classes mean, in words: given by the user, read from a file, or made from their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_transfer.data.texts_tokens import TextPreprocessing
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import BackboneCard, Schema

__all__ = ["Descriptions", "complete_descriptions", "embed_descriptions", "embed_texts", "read_descriptions"]

Descriptions = dict[str, list[str]]
"""Class -> what it means, in one text or several: the ways in which people ask for it."""

_BATCH = 32
_SEPARATORS = str.maketrans("_-/", "   ")


def read_descriptions(given: Mapping[str, str | Sequence[str]] | str | None) -> Descriptions:
    """Return the descriptions as they were given, or read them from a YAML (or JSON) file.

    Args:
        given: Class -> description or list of descriptions, or the path of a file that holds such a mapping; None for
            none.

    Raises:
        DataError: If the file cannot be read, or holds no mapping of names to texts.

    Example:
        >>> read_descriptions({"card_arrival": "When does my new card come?"})
        {'card_arrival': ['When does my new card come?']}
    """
    if given is None:
        return {}
    if isinstance(given, str):
        try:
            content = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"Cannot read the descriptions `{given}`: {str(error).splitlines()[0]}") from error
        if not isinstance(content, Mapping):
            raise DataError(
                f"`{given}` holds a {type(content).__name__}, and descriptions are a mapping. Write a line "
                "`QUEUE: what belongs there` for each queue."
            )
        given = content
    found: Descriptions = {str(name): _texts(value) for name, value in given.items()}
    wrong = [name for name, texts in found.items() if not texts]
    if wrong:
        raise DataError(
            f"Descriptions are texts, and these are none, or empty: {listing(f'`{name}`' for name in wrong)}. "
            "Describe these queues, or leave them out to use their names."
        )
    return found


def _texts(value: object) -> list[str]:
    """Return a description as a list of texts; an empty list where it is not, or where one is empty."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return []
    return [str(text) for text in texts] if all(isinstance(text, str) and text.strip() for text in texts) else []


def complete_descriptions(given: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Descriptions:
    """Return descriptions for every class: those given, else its name with ``_``, ``-`` and ``/`` as spaces.

    Raises:
        DataError: If a description belongs to no class.

    Example:
        >>> complete_descriptions({"b": ["Money back"]}, ["card_arrival", "b"])
        {'card_arrival': ['card arrival'], 'b': ['Money back']}
    """
    unknown = [name for name in given if name not in classes]
    if unknown:
        raise DataError(
            f"A description belongs to `{unknown[0]}`, which is no class of the data.{closest(unknown[0], classes)} "
            f"Classes: {listing(classes, 20)}."
        )
    return {name: list(given.get(name) or [" ".join(name.translate(_SEPARATORS).split())]) for name in classes}


def embed_descriptions(
    backbone: nn.Module, card: BackboneCard, schema: Schema, descriptions: Mapping[str, Sequence[str]]
) -> tuple[Tensor, Tensor]:
    """Return the direction of each description ``(M, F)``, and its class ``(M,)`` by the order of the schema.

    Args:
        backbone: As `embed_texts`.
        card: As `embed_texts`.
        schema: Its classes are all described.
        descriptions: Class -> texts.
    """
    owners = [place for place, name in enumerate(schema.classes) for _ in descriptions[name]]
    texts = [text for name in schema.classes for text in descriptions[name]]
    return embed_texts(backbone, card, schema, texts), torch.tensor(owners)


def embed_texts(backbone: nn.Module, card: BackboneCard, schema: Schema, texts: Sequence[str]) -> Tensor:
    """Return the direction of each text, ``(N, F)`` of length 1, as the backbone sees it in eval mode.

    Args:
        backbone: Of texts; its modes are put back.
        card: Brings the tokenizer.
        schema: Its preprocessing is used, where it has one.
        texts: Cleaned in the same way as tickets.

    Raises:
        MisconfigurationException: If the backbone does not read texts.
    """
    if card.modality != "text":
        raise MisconfigurationException(
            f"Descriptions are texts, and the backbone `{card.name}` reads {card.modality}. Use a text encoder."
        )
    given = schema.preprocessing
    encode = TextPreprocessing.from_dict(given, card) if given else TextPreprocessing.from_card(card)
    device = next(backbone.parameters()).device
    modes = {part: part.training for part in backbone.modules()}
    found = []
    with torch.no_grad():
        backbone.eval()
        for start in range(0, len(texts), _BATCH):
            batch = encode.collate([encode(encode.clean(text)) for text in texts[start : start + _BATCH]])
            found.append(backbone({key: value.to(device) for key, value in batch.items()}).float())
    for part, mode in modes.items():
        part.training = mode
    return nn.functional.normalize(torch.cat(found), dim=1)
