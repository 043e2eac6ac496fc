"""Clean texts of tickets and mails: HTML, characters, quoted replies, signatures, personal data."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from html.parser import HTMLParser
from typing import Any

from lightning_transfer.data.texts_private import mask_cards, mask_emails, mask_ibans, mask_phones
from lightning_transfer.data.texts_replies import is_forwarded, strip_quotes, strip_signature, strip_subject

__all__ = ["TextCleaning", "html_to_text", "is_html", "normalize_characters", "tidy_whitespace"]

_TAGS = (
    "html|head|body|p|div|br|span|table|tbody|tr|td|th|ul|ol|li|a|b|i|u|em|strong|font|style|script|blockquote|h[1-6]|img"
    "|hr|pre|meta|center|o:p"
)
_TAG = re.compile(rf"<!doctype html|</?(?:{_TAGS})(?:\s[^<>]{{0,2000}})?/?>", re.IGNORECASE)
_UNCLOSED = re.compile(r"<(?![^<>]*>)")
_BLOCKS = frozenset("p div br tr table ul ol li h1 h2 h3 h4 h5 h6 hr pre blockquote body center".split())
_SPACED = frozenset({"p", "table", "ul", "ol", "pre", "blockquote", *(f"h{level}" for level in range(1, 7))})
_HIDDEN = frozenset({"script", "style", "head", "title"})

# Joiners (U+200C, U+200D) stay: Persian, Hindi and emoji mean something by them.
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb]"
)
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class TextCleaning:
    r"""What is cleaned, and how: the same for training and for prediction, so it belongs into the checkpoint.

    The order is: HTML, characters, quotes, signature, addresses, accounts, cards, telephone numbers, white space. Each
    step is a function of its own that states its rule.

    Attributes:
        html: Bodies in HTML become text (`html_to_text`).
        quotes: Quoted replies go (`strip_quotes`), and with them ``Re:`` and numbers in brackets before the subject;
            mails whose subject says that they were passed on (``Fwd:``, ``WG:``) keep what they quote.
        signatures: Signatures go (`strip_signature`).
        emails: E-mail addresses become ``[EMAIL]``.
        ibans: Account numbers become ``[IBAN]``.
        cards: Card numbers become ``[CARD]``.
        phones: Telephone numbers become ``[PHONE]``; needs phonenumbers.
        phone_regions: Countries whose numbers are written without ``+``; more of them find more, in order numbers too.

    Example:
        >>> cleaning = TextCleaning(phones=False)
        >>> text, counts = cleaning.clean("AW: Lampe", "<p>Sie ist dunkel.</p><p>LG Ann<br>ann@example.com</p>")
        >>> text, dict(counts)
        ('Lampe\n\nSie ist dunkel.', {'html': 1, 'subject prefixes': 1, 'signatures': 1})
    """

    html: bool = True
    quotes: bool = True
    signatures: bool = True
    emails: bool = True
    ibans: bool = True
    cards: bool = True
    phones: bool = True
    phone_regions: tuple[str, ...] = ("US", "GB", "DE")

    def clean(self, subject: str, body: str) -> tuple[str, Counter[str]]:
        """Return subject and body as one text, an empty line between them, and what was changed how often.

        Args:
            subject: May be empty.
            body: Plain or HTML.
        """
        subject, body, counts = self.read(subject, body)
        text, taken = self.strip(subject, body)
        return text, counts + taken

    def read(self, subject: str, body: str) -> tuple[str, str, Counter[str]]:
        """Return subject and body as a person reads them: no HTML, normal characters, nothing taken away."""
        counts: Counter[str] = Counter()
        if self.html and is_html(body):
            body = html_to_text(body)
            counts["html"] += 1
        normal = [normalize_characters(text) for text in (subject, body)]
        counts["characters"] += normal != [subject, body]
        return " ".join(normal[0].split()), tidy_whitespace(normal[1]), +counts

    def strip(self, subject: str, body: str) -> tuple[str, Counter[str]]:
        """Take away, from what `read` returns, what is not wanted; return one text, and counts."""
        counts: Counter[str] = Counter()
        forwarded = is_forwarded(subject)
        if self.quotes:
            subject = _step("subject prefixes", strip_subject, subject, counts)
            body = body if forwarded else _step("quotes", strip_quotes, body, counts)
        if self.signatures:
            body = _step("signatures", strip_signature, body, counts)
        text = tidy_whitespace(f"{subject}\n\n{body}")
        for name, mask in self._masks().items():
            text, found = mask(text)
            counts[name] += found
        return text, +counts

    def _masks(self) -> dict[str, Callable[[str], tuple[str, int]]]:
        """Return the wanted masks; digits of accounts and cards must be gone before telephones are looked for."""
        every: dict[str, Callable[[str], tuple[str, int]]] = {
            "emails": mask_emails,
            "ibans": mask_ibans,
            "cards": mask_cards,
            "phones": lambda text: mask_phones(text, self.phone_regions),
        }
        return {name: mask for name, mask in every.items() if getattr(self, name)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "phone_regions": list(self.phone_regions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextCleaning:
        """Rebuild from `to_dict`; unknown keys are ignored."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        return cls(**{**known, "phone_regions": tuple(known.get("phone_regions", cls.phone_regions))})


def _step(name: str, change: Callable[[str], str], text: str, counts: Counter[str]) -> str:
    """Apply one step, and count it if it changed the text."""
    changed = change(text)
    if changed != text:
        counts[name] += 1
    return changed


def is_html(text: str) -> bool:
    """Return whether a text has a tag that mails are made of; an address in angle brackets is none.

    Example:
        >>> is_html("a<br>b"), is_html("x < y, and <ann@example.com> says a>b")
        (True, False)
    """
    return "<" in text and _TAG.search(text) is not None


def html_to_text(text: str) -> str:
    r"""Return what a mail program shows of HTML, as plain text.

    Paragraphs, line breaks, rows and list items begin new lines; cells are parted by spaces; what stands in
    ``blockquote`` gets ``> `` before each line, as plain mails quote; scripts, styles, comments and titles go. A ``<``
    that begins no tag stays.

    Example:
        >>> html_to_text("<p>Hi,<br>it&rsquo;s <b>dark</b>.</p><blockquote>Is it on?</blockquote>")
        'Hi,\nit’s dark.\n\n> Is it on?'
    """
    parser = _Text()
    # The parser needs quadratic time for tags that never close, so they are made text first.
    parser.feed(_UNCLOSED.sub("&lt;", _without_comments(text)))
    parser.close()
    return tidy_whitespace(parser.text())


def _without_comments(text: str) -> str:
    pieces: list[str] = []
    place = 0
    while (start := text.find("<!--", place)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            break
        pieces.append(text[place:start])
        place = end + 3
    return "".join(pieces) + text[place:]


class _Text(HTMLParser):
    """Collects lines, each with its depth of quotation."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[tuple[int, list[str]]] = [(0, [])]
        self._quoted = 0
        self._hidden = 0
        self._kept = 0  # inside <pre>, where spaces and breaks mean something

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line, a quotation or something hidden."""
        if tag == "body":
            self._hidden = 0  # whatever a broken head left open
        self._hidden += tag in _HIDDEN
        if tag == "blockquote":
            self._break(empty=True)
            self._quoted += 1
        if tag in _BLOCKS:
            self._break(empty=tag in _SPACED, always=tag == "br")
        self._kept += tag == "pre"
        if tag == "li":
            self._lines[-1][1].append("- ")
        elif tag in ("td", "th"):
            self._lines[-1][1].append(" ")

    def handle_endtag(self, tag: str) -> None:
        """End it."""
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        self._kept = max(0, self._kept - (tag == "pre"))
        if tag in _BLOCKS and tag != "br":
            self._break(empty=tag in _SPACED)
        if tag == "blockquote":
            self._quoted = max(0, self._quoted - 1)
            self._break(empty=True)

    def handle_data(self, data: str) -> None:
        """Add text; line breaks of the source are spaces."""
        if self._hidden:
            return
        if self._kept:
            first, *others = data.split("\n")
            self._lines[-1][1].append(first)
            self._lines.extend((self._quoted, [line]) for line in others)
        else:
            self._lines[-1][1].append(re.sub(r"\s+", " ", data))

    def text(self) -> str:
        """Return all lines."""
        rows = [(depth, "".join(pieces).strip()) for depth, pieces in self._lines]
        return "\n".join("> " * depth + line if line else "" for depth, line in rows)

    def _break(self, *, empty: bool, always: bool = False) -> None:
        """Begin a line unless nothing is in this one, after an empty one if asked for."""
        content = any(piece.strip() for piece in self._lines[-1][1])
        if content and empty:
            self._lines.append((self._quoted, []))
        if content or always:
            self._lines.append((self._quoted, []))
        self._lines[-1] = (self._quoted, self._lines[-1][1])


def normalize_characters(text: str) -> str:
    r"""Return a text in the composed form of Unicode (NFC), with one kind of line break and of space.

    Control characters and invisible ones (zero-width spaces, soft hyphens, marks of direction, byte order marks) go,
    but for the joiners of scripts and emoji; halves of surrogate pairs, which no file can hold, become U+FFFD.

    Example:
        >>> normalize_characters("cafe\u0301\u00a0\u200bau\u00adf\r\nzu\x07")
        'café auf\nzu'
    """
    text = _HALVES.sub("\ufffd", _SPACES.sub(" ", _INVISIBLE.sub("", _BREAKS.sub("\n", text))))
    return unicodedata.normalize("NFC", text)


def tidy_whitespace(text: str) -> str:
    r"""Return a text with single spaces, no spaces at line ends, and at most one empty line in a row.

    Example:
        >>> tidy_whitespace("  a \t b \n\n \n\nc ")
        'a b\n\nc'
    """
    lines = [line.strip() for line in re.sub(r"[ \t]+", " ", text).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
