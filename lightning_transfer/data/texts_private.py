"""Mask what a text says of persons: addresses, telephone, card and account numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_transfer.errors import DataError

__all__ = ["is_iban", "luhn", "mask_cards", "mask_emails", "mask_ibans", "mask_phones", "phone_library"]

# The look behind makes each run of letters be tried once: a megabyte without an at sign takes linear time.
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])", re.IGNORECASE)
_CARD = re.compile(r"(?<![\w-])[2-6](?:[ -]?\d){12,18}(?![\w-])")
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})(\d{2})(?=[ -]?[A-Za-z0-9])")
_DIGITS = re.compile(r"[+(]?\d[\d\s()/.\-]{4,}\d")
_TOLD = re.compile(
    r"(?P<word>\b(?:tel(?:efon(?:nummer)?|ephone)?|phone(?: number)?|mobile?|handy(?:nummer)?|fax"
    r"|call me (?:on|at|under)|rückruf unter|erreichbar unter)(?:\s?(?:no|nr|number)\b)?\.?\s{0,2}:?\s{0,2})"
    r"(?P<number>[+(]?\d[\d\s()/.\-]{4,24}\d)",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(
    r"\b(?:order|ticket|invoice|customer|account|tracking|parcel|case|reference|ref|serial|article|part|rma|booking"
    r"|bestell\w*|rechnung\w*|auftrag\w*|kunden\w*|sendung\w*|vorgang\w*|artikel\w*|serien\w*|paket\w*)"
    r"(?:[\s-]?(?:number|no|nr|id|nummer|code))?[\s.:#]{0,4}$"
    r"|[#\w-]$",
    re.IGNORECASE,
)

# Number of characters by country, from the registry of ISO 13616.
_IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT", 26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL", 29: "BR EG PS QA UA",
        30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for code in codes.split()
}  # fmt: skip


def mask_emails(text: str) -> tuple[str, int]:
    """Replace each e-mail address by ``[EMAIL]``, and count them.

    An address is a word with an at sign before a domain of at least two parts; accents are allowed on both sides.

    Example:
        >>> mask_emails("Write to Ann <ann.lee+shop@mail.example.com>.")
        ('Write to Ann <[EMAIL]>.', 1)
    """
    return _EMAIL.subn("[EMAIL]", text) if "@" in text else (text, 0)


def mask_cards(text: str) -> tuple[str, int]:
    """Replace each card number by ``[CARD]``, and count them.

    A card number has 13 to 19 digits, of which the first is 2 to 6, in groups or not, and the check digit of `luhn`;
    one in ten other numbers of that length would pass as well.

    Example:
        >>> mask_cards("Card 4111 1111 1111 1111, not 4111 1111 1111 1112")
        ('Card [CARD], not 4111 1111 1111 1112', 1)
    """
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if not luhn(match.group()):
            return match.group()
        count += 1
        return "[CARD]"

    return _CARD.sub(replace, text), count


def luhn(number: str) -> bool:
    """Return whether the digits of a number end in their check digit (ISO/IEC 7812).

    Example:
        >>> luhn("4111 1111 1111 1111"), luhn("4111 1111 1111 1112")
        (True, False)
    """
    digits = [int(character) for character in reversed(number) if character in "0123456789"]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[1::2]]
    return bool(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def mask_ibans(text: str) -> tuple[str, int]:
    """Replace each account number by ``[IBAN]``, and count them.

    Its length must be that of its country and its check digits right (ISO 13616); spaces and hyphens may stand between.

    Example:
        >>> mask_ibans("Please pay to DE89 3704 0044 0532 0130 00 this week")
        ('Please pay to [IBAN] this week', 1)
    """
    pieces: list[str] = []
    done = count = 0
    for match in _IBAN_START.finditer(text):
        if match.start() < done:
            continue
        length = _IBAN_LENGTHS.get(match.group(1).upper())
        end = None if length is None else _end_of(text, match.start(), length)
        if end is None or not is_iban(text[match.start() : end]):
            continue
        pieces += [text[done : match.start()], "[IBAN]"]
        done, count = end, count + 1
    return "".join(pieces) + text[done:], count


def is_iban(text: str) -> bool:
    """Return whether a text, without spaces and hyphens, has its country's length and right check digits.

    Example:
        >>> is_iban("GB82 WEST 1234 5698 7654 32"), is_iban("GB82 WEST 1234 5698 7654 33")
        (True, False)
    """
    plain = re.sub(r"[ -]", "", text).upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", plain, re.ASCII) or len(plain) != _IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _end_of(text: str, start: int, length: int) -> int | None:
    """Return where ``length`` letters and digits end, at most one space or hyphen between two of them."""
    place, seen, gap = start, 0, False
    while place < len(text) and seen < length:
        character = text[place]
        if character.isascii() and character.isalnum():
            seen, gap = seen + 1, False
        elif character in " -" and not gap:
            gap = True
        else:
            return None
        place += 1
    whole = seen == length and not (place < len(text) and text[place].isalnum())
    return place if whole else None


def mask_phones(text: str, regions: Sequence[str] = ("US", "GB", "DE")) -> tuple[str, int]:
    """Replace each telephone number by ``[PHONE]``, and count them.

    - Digits after a word that announces them (``Tel.:``, ``call me on``, ``Handy``) are masked whatever they are.
    - Else a number must be valid by the numbering plans of the library phonenumbers: with a ``+`` in any country,
      without in one of ``regions``. A number right after a letter, ``#``, or a word for another one (``order``,
      ``Rechnung Nr.``) is none.

    Args:
        text: Any.
        regions: Two-letter codes of the countries whose numbers are written without ``+``.

    Raises:
        DataError: If phonenumbers is not installed, or knows no such region.

    Example:
        >>> mask_phones("Ring +1 202-555-0142 about order 2025550143")
        ('Ring [PHONE] about order 2025550143', 1)
    """
    text, count = _mask_announced(text)
    if not _DIGITS.search(text):
        return text, count
    for region in regions:
        text, found = _replace(text, _find_phones(text, region))
        count += found
    return text, count


def _mask_announced(text: str) -> tuple[str, int]:
    return _TOLD.subn(lambda match: f"{match['word']}[PHONE]", text)


def _find_phones(text: str, region: str) -> list[tuple[int, int]]:
    """Return begin and end of each valid number that is not another kind of number."""
    library = phone_library()
    if region not in library.SUPPORTED_REGIONS:
        raise DataError(f"No telephone region is `{region}`. Expected two-letter country codes such as US, GB, DE.")
    found = []
    for match in library.PhoneNumberMatcher(text, region):
        before = text[max(0, match.start - 30) : match.start]
        if not _OTHER_NUMBER.search(before):
            found.append((match.start, match.end))
    return found


def phone_library() -> Any:  # noqa: ANN401 - a module
    """Return phonenumbers, or say how to get it.

    Raises:
        DataError: If it is not installed.
    """
    try:
        import phonenumbers
    except ImportError as error:
        raise DataError(
            "Telephone numbers are found with phonenumbers, and it is not installed. Run `pip install phonenumbers`, or"
            " set `phones: false`."
        ) from error
    return phonenumbers


def _replace(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, int]:
    for start, end in reversed(spans):
        text = f"{text[:start]}[PHONE]{text[end:]}"
    return text, len(spans)
