"""What a user must be told of a backbone's licence before a run."""

from __future__ import annotations

import re

from lightning_transfer.types import BackboneCard

__all__ = ["licence_notice"]

_FREE = frozenset(
    "afl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc0 cc0-1.0 "
    "cdla-permissive-2.0 isc mit ncsa pddl unlicense wtfpl zlib".split()
)
_UNKNOWN = frozenset({"", "unknown", "none", "other", "n/a"})
_NON_COMMERCIAL = re.compile(r"(^|[^a-z])nc([^a-z]|$)|non-?_?\s?commercial|research|academic|evaluation")


def licence_notice(card: BackboneCard) -> str | None:
    """Compose the sentence that a run prints about the licence of its pretrained weights.

    Args:
        card: The backbone's card.

    Returns:
        None where the licence is known and permissive, or where there are no pretrained weights. Else one sentence:
        the licence is unknown, non-commercial, or one that we do not know.

    Example:
        >>> licence_notice(BackboneCard(name="a", architecture="timm/resnet18", source="timm", licence="Apache-2.0"))
        >>> licence_notice(BackboneCard(name="a", architecture="timm/x", source="timm", licence="cc-by-nc-4.0"))
        'The pretrained weights `a` are licensed `cc-by-nc-4.0`: non-commercial use only, the adapted model included.'
    """
    if card.source == "random":
        return None
    licence = re.sub(r"[\s_]+", "-", card.licence.strip().lower())
    if licence in _UNKNOWN:
        return (
            f"The licence of the pretrained weights `{card.name}` is unknown. "
            f"Find it out before you use or share the adapted model."
        )
    if _NON_COMMERCIAL.search(licence):
        return (
            f"The pretrained weights `{card.name}` are licensed `{card.licence}`: "
            f"non-commercial use only, the adapted model included."
        )
    if licence in _FREE:
        return None
    return (
        f"The pretrained weights `{card.name}` are licensed `{card.licence}`, which may restrict their use. "
        f"Read its terms before you use or share the adapted model."
    )
