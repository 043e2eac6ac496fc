"""Make a hand-written message look as it arrives: details filled in, slips, signatures, quoted mails, HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

__all__ = ["Customer", "Dice", "as_html", "day", "fill", "quote", "signature", "with_slips"]

T = TypeVar("T")

_PRODUCTS = ("Halo", "Therma 2", "Pico", "Dusty R3", "DoorCam 2", "Nimbus")
_MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split(),
}
_WEEKDAYS = {"en": "Mon Tue Wed Thu Fri Sat Sun".split(), "de": "Mo Di Mi Do Fr Sa So".split()}
_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4012888888881881")
_IBANS = ("DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32", "AT611904300234573201")
_DISCLAIMERS = {
    "en": "This e-mail and any attachments are confidential and intended only for the person addressed.",
    "de": "Diese E-Mail ist vertraulich und ausschließlich für den Adressaten bestimmt.",
}
_MOBILE = {"en": ("Sent from my iPhone", "Get Outlook for Android"), "de": ("Von meinem iPhone gesendet",)}
_SUPPORT = "Norvik Support <support@norvik.example>"


class Dice:
    """Draws by ``Random.random`` alone, whose sequence Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - no secret

    def chance(self, share: float) -> bool:
        """Return True that often."""
        return self._random.random() < share

    def number(self, low: int, high: int) -> int:
        """Return a whole number of the range, both ends included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self._random.random() * len(items))]

    def weighted(self, shares: Mapping[str, float]) -> str:
        """Return a key, each as often as its share says."""
        rest = self._random.random() * sum(shares.values())
        for name, share in shares.items():
            rest -= share
            if rest < 0:
                return name
        return name


@dataclass(frozen=True)
class Customer:
    """Who writes.

    Attributes:
        number: Groups the tickets.
        name: First and last.
        language: ``en`` or ``de``.
        email: Of example.com.
        phone: Of a range that is kept free for films.
        company: Whether it has a signature with a company.
        mobile: Whether mails are written on a telephone.
        since: Its first ticket.
    """

    number: str
    name: str
    language: str
    email: str
    phone: str
    company: bool
    mobile: bool
    since: datetime


def day(when: datetime, language: str) -> str:
    """Return a date as people write it."""
    if language == "de":
        return f"{when.day}.{when.month}." if when.day % 2 else when.strftime("%d.%m.%Y")
    return f"{when.day} {_MONTHS['en'][when.month - 1]}" if when.day % 2 else when.strftime("%d/%m/%Y")


def fill(text: str, customer: Customer, when: datetime, product: str, dice: Dice, private: list[str]) -> str:
    """Replace the places in braces; what is personal is added to ``private``."""
    language = customer.language
    euros, more = dice.number(9, 249), dice.number(1, 40)
    money = "{} €" if language == "de" else "€{}"
    cents = dice.pick(("00", "90", "95", "49"))
    sep = "," if language == "de" else "."
    values = {
        "order": dice.pick(("N-2025-{}", "#{}", "{}")).format(dice.number(41000, 69999)),
        "invoice": f"RE-2025-{dice.number(1000, 9999)}",
        "rma": f"RMA-{dice.number(50000, 59999)}",
        "customer": customer.number,
        "product": product,
        "amount": money.format(f"{euros}{sep}{cents}"),
        "amount2": money.format(f"{euros + more}{sep}{cents}"),
        "days": str(dice.number(4, 19)),
        "date": day(when + timedelta(days=dice.number(-20, -2)), language),
        "month": _MONTHS[language][(when.month + dice.number(-5, 3)) % 12],
        "card": dice.pick(_CARDS),
        "iban": dice.pick(_IBANS),
        "email": customer.email,
        "phone": customer.phone,
    }
    private.extend(values[name] for name in ("card", "iban", "email", "phone") if "{" + name + "}" in text)
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)


def pick_product(dice: Dice) -> str:
    """Return a product that was sold all the time."""
    return dice.pick(_PRODUCTS)


def with_slips(text: str, dice: Dice) -> str:
    """Return a text with a few slips of the fingers, none of them in a place in braces."""
    words = text.split(" ")
    for _ in range(max(1, len(words) // 12)):
        place = dice.number(0, len(words) - 1)
        word = words[place]
        if len(word) < 5 or not word.isalpha():
            continue
        at = dice.number(1, len(word) - 3)
        words[place] = dice.pick(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word.lower(),
            )
        )
    text = " ".join(words)
    if dice.chance(0.3):
        text = text.lower()
    if dice.chance(0.3):
        text = text.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue").replace("ß", "ss")
    if dice.chance(0.25):
        text = text.rstrip(".")
    if dice.chance(0.15):
        text = re.sub(r"[?!.]$", "???", text)
    return text


def signature(customer: Customer, dice: Dice) -> str:
    """Return what stands below a mail, after the closing."""
    first, _, last = customer.name.partition(" ")
    lines = [dice.pick((customer.name, first, f"{first[0]}. {last}"))]
    if customer.company:
        lines = ["--", customer.name, f"{last} & Co.", f"Tel. {customer.phone}", customer.email]
        if dice.chance(0.4):
            lines += ["", _DISCLAIMERS[customer.language]]
    elif customer.mobile:
        lines += ["", dice.pick(_MOBILE[customer.language])]
    return "\n".join(lines)


def quote(text: str, earlier: str, customer: Customer, when: datetime, dice: Dice) -> str:
    """Return a mail with an answer of the support team quoted below, and below that what it answered."""
    language, sent = customer.language, when - timedelta(days=dice.number(1, 4), minutes=dice.number(0, 600))
    clock = sent.strftime("%H:%M")
    style = dice.number(0, 3)
    if style == 0:
        weekday = _WEEKDAYS[language][sent.weekday()]
        head = (
            f"Am {weekday}., {sent.day}. {_MONTHS['de'][sent.month - 1]} {sent.year} um {clock} schrieb {_SUPPORT}:"
            if language == "de"
            else f"On {weekday}, {sent.day} {_MONTHS['en'][sent.month - 1][:3]} {sent.year} at {clock}, {_SUPPORT}\n"
            "wrote:"
        )
    elif style == 1:
        verb = "schrieb am" if language == "de" else "wrote on"
        head = f"{_SUPPORT} {verb} {sent.strftime('%d.%m.%Y')} {clock}:"
        if language == "en":
            head = f"On {sent.strftime('%d/%m/%Y')} {clock}, Norvik Support wrote:"
    else:
        names = ("Von", "Gesendet", "An", "Betreff") if language == "de" else ("From", "Sent", "To", "Subject")
        cells = (_SUPPORT, f"{day(sent, language)} {clock}", customer.email, "Re: Norvik")
        lines = [f"{name}: {cell}" for name, cell in zip(names, cells, strict=True)]
        rule = "-----Ursprüngliche Nachricht-----" if language == "de" else "-----Original Message-----"
        head = "\n".join([rule, *lines, ""] if style == 2 else ["_" * 32, *lines, ""])
    marked = style < 2
    body = "\n".join(f"> {line}".rstrip() for line in earlier.split("\n")) if marked else earlier
    return f"{text}\n\n{head}\n{body}"


def as_html(text: str, dice: Dice) -> str:
    """Return a plain mail as the HTML of a mail program."""
    parts: list[str] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line.strip()]
        quoted = [line.startswith(">") for line in lines]
        plain = [html.escape(line, quote=False) for line, mark in zip(lines, quoted, strict=True) if not mark]
        inner = [html.escape(line[1:].strip(), quote=False) for line, mark in zip(lines, quoted, strict=True) if mark]
        if plain:
            parts.append(f"<p>{'<br>'.join(plain)}</p>")
        if inner:
            parts.append(f'<blockquote type="cite">{"<br>".join(inner)}</blockquote>')
    body = "".join(parts).replace("ü", "&uuml;") if dice.chance(0.5) else "\r\n".join(parts)
    style = "<style>p{margin:0;font-family:Calibri}</style>" if dice.chance(0.5) else ""
    return f"<html><head>{style}</head><body>{body}</body></html>"
