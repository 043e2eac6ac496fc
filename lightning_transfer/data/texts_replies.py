"""Find in a mail what its writer did not write for this purpose: quoted replies, signatures, automatic replies.

Rules for English and German mail programs, each stated at its function; none of them looks at more than a few lines at
once, so a mail of a megabyte takes no longer than its length. (mail-parser-reply 1.36 was tried: its expressions need
1.5 s for 9 kB of "On a day On a day" and over 50 s for 90 kB, and it takes a list item `- lamp` for a signature.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = ["is_auto_reply", "is_forwarded", "strip_quotes", "strip_signature", "strip_subject"]

_PREFIX = re.compile(r"\s*(?:re|aw|antw|antwort|fw|fwd|wg)\s*(?:\[\d+\])?\s*:\s*", re.IGNORECASE)
_FORWARD_PREFIX = re.compile(r"\s*(?:(?:re|aw|antwort)\s*:\s*)*(?:fw|fwd|wg)\s*:", re.IGNORECASE)
_TAG = re.compile(r"\[(?:ticket|case|request|anfrage|vorgang)?\s*[#:]?\s*[\w-]*\d[\w-]*\]\s*", re.IGNORECASE)

_STARTS = re.compile(r"(?:on|am)\b", re.IGNORECASE)
_VERB = re.compile(r"\b(?:wrote|writes|schrieb|schreibt)\b", re.IGNORECASE)
_FROM = re.compile(r"[*\s]*(?:from|von)\s*:", re.IGNORECASE)
_FIELD = re.compile(r"[*\s]*(?:sent|date|to|cc|subject|gesendet|datum|an|kopie|betreff)\s*:", re.IGNORECASE)
_ORIGINAL = re.compile(
    r"[-_*\s]*(?:original message|original-?nachricht|ursprüngliche nachricht)[-_*\s:]*"
    r"|.{0,20}(?:type|write) your reply above this line.{0,20}"
    r"|.{0,20}antwort(?:en sie)? (?:bitte )?(?:oberhalb|über) dieser (?:linie|zeile).{0,20}",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"[-_*\s]*(?:begin )?(?:forwarded message|(?:anfang der )?weitergeleitete[n]? nachricht)[-_*\s:]*", re.IGNORECASE
)
_RULE = re.compile(r"\s*_{20,}\s*")
_HEADER_LETTERS = 300

_NAME = r"(?:[\s,.!]+(?-i:[A-ZÄÖÜ])[\w.'-]{0,20}){0,3}"
_CLOSING = re.compile(
    r"\W{0,3}(?:"
    r"(?:(?:with )?(?:best|kind|kindest|warm|many) )?regards|best wishes|all the best|best|cheers|sincerely"
    r"|yours (?:sincerely|faithfully|truly)"
    r"|(?:mit )?(?:(?:freundliche|beste|viele|liebe|schöne|herzliche|sonnige)[nm]? )?gr(?:ü|ue)(?:ß|ss)(?:en|e)?"
    r"|gru(?:ß|ss)|mfg|m\.f\.g|lg|vg|hochachtungsvoll)" + _NAME + r"[\s,.!]*",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"\W{0,3}(?:(?:many )?thanks(?: again| in advance| a lot| so much)?|thank you(?: in advance| very much)?|thx"
    r"|(?:vielen |besten |herzlichen )?dank(?: im voraus)?|danke(?: im voraus| schön| sehr)?)" + _NAME + r"[\s,.!]*",
    re.IGNORECASE,
)
_MOBILE = re.compile(
    r"\W{0,3}(?:sent (?:from|via|with) (?:my |the |outlook|mail for|proton|yahoo|samsung).{0,50}"
    r"|get outlook for .{0,30}|(?:diese nachricht wurde )?von meine[mr] .{1,40} gesendet.?"
    r"|gesendet (?:von|mit|aus) (?:meine|der|outlook|mail).{0,50}"
    r"|holen sie sich outlook .{0,30})",
    re.IGNORECASE,
)
_DISCLAIMER = re.compile(
    r"\W{0,3}(?:confidentiality notice|disclaimer\b|vertraulichkeitshinweis|haftungsausschluss"
    r"|this (?:e-?mail|message)\b.{0,80}\b(?:confidential|intended (?:only|solely)|privileged)"
    r"|diese (?:e-?mail|nachricht)\b.{0,80}\b(?:vertraulich|ausschließlich)"
    r"|der inhalt dieser e-?mail\b)",
    re.IGNORECASE,
)
_POSTSCRIPT = re.compile(r"\s*(?:p\.?\s?s\.?|ps|nb|n\.b\.)\s*[:\s]", re.IGNORECASE)
_SIGNATURE_LINES, _SIGNATURE_LETTERS = 8, 70

_AUTO_SUBJECT = re.compile(
    r"(?:automatic reply|auto(?:matic)?[- ]?(?:reply|response|responder)|out of (?:the )?office|ooo\b"
    r"|automatische antwort|abwesenheits(?:notiz|nachricht|assistent)|abwesend\b|abwesenheit:|nicht im (?:büro|haus)"
    r"|undeliverable|undelivered"
    r"|delivery status notification|mail delivery (?:failed|failure|subsystem)|failure notice|returned mail"
    r"|unzustellbar|nicht zustellbar|read:|gelesen:|eingangsbestätigung ihrer)",
    re.IGNORECASE,
)
_AUTO_NOTICE = re.compile(
    r"(?:this is an automat(?:ic|ed|ically generated)|dies ist eine automatisch"
    r"|diese (?:e-?mail|nachricht|antwort) wurde automatisch"
    r"|this (?:e-?mail|message) was (?:sent|generated) automatically"
    r"|delivery (?:has failed )?to (?:these|the following) recipients?"
    r"|your message (?:to .{1,80} )?could not be delivered"
    r"|ihre nachricht (?:an .{1,80} )?konnte nicht zugestellt werden|this is the mail system at host"
    r"|message not delivered|the following (?:address|recipient)(?:es|s)? .{0,30}(?:failed|rejected))",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"(?:i am|i'm|i will be|we are) (?:currently |presently )?(?:out of (?:the )?office|on (?:annual |parental )?leave"
    r"|on (?:vacation|holiday)|away from (?:my desk|the office))"
    r"|ich (?:bin|befinde mich) (?:derzeit |zurzeit |zur zeit |momentan |aktuell |bis .{1,30} |vom .{1,40} )?"
    r"(?:nicht im (?:büro|haus)|abwesend|im urlaub|in elternzeit|außer haus)",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:until|return(?:ing)?|back (?:on|in)|urgent|limited access|erreichbar|rückkehr|dringend\w*|vertretung"
    r"|zurück|weitergeleitet|not be forwarded)\b",
    re.IGNORECASE,
)
_GREETING = re.compile(r"(?:hi|hello|dear|hallo|guten tag|liebe[r]?|sehr geehrte[r]?|moin)\b.{0,60}", re.IGNORECASE)


def strip_subject(subject: str) -> str:
    """Remove reply and forward prefixes (``Re:``, ``AW:``, ``WG:``) and the number that a help desk puts in brackets.

    Example:
        >>> strip_subject("AW: Re: [Ticket#2025-114] Lampe flackert")
        'Lampe flackert'
    """
    before = None
    while before != subject:
        before = subject
        subject = _TAG.sub("", _PREFIX.sub("", subject, count=1) if _PREFIX.match(subject) else subject).strip()
    return subject


def is_forwarded(subject: str) -> bool:
    """Return whether the subject says that the mail was passed on: what it quotes is then what it is about.

    Example:
        >>> is_forwarded("WG: Rechnung 17"), is_forwarded("Re: Rechnung 17")
        (True, False)
    """
    return _FORWARD_PREFIX.match(subject) is not None


def strip_quotes(text: str) -> str:
    r"""Remove what a mail quotes of earlier ones.

    - Lines that begin with ``>`` go; what is written between them stays.
    - A line such as ``On 3 June 2025 at 10:11, Ann <ann@example.com> wrote:`` or ``Am 3.6.2025 um 10:11 schrieb Ann:``,
      of up to three lines and with a digit or an address in it, goes; if no ``>`` follows, all below goes too.
    - ``From:`` or ``Von:`` with two more header fields in the five lines after it (Outlook), ``-----Original
      Message-----``, ``Ursprüngliche Nachricht``, ``type your reply above this line``: they and all below go.
    - From ``Forwarded message`` on everything stays: it is what the mail is about.
    - If nothing were left, the text stays as it is.

    Args:
        text: Plain, with ``\n`` between lines.

    Example:
        >>> strip_quotes("Still dark.\n\nAm 03.06.2025 um 10:11 schrieb Bea <b@example.com>:\n> Is it plugged in?")
        'Still dark.'
    """
    lines = text.split("\n")
    kept: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if line.lstrip().startswith(">"):
            place += 1
            continue
        if _FORWARDED.fullmatch(line[:_HEADER_LETTERS]):
            kept.extend(lines[place:])
            break
        header = _wrote_header(lines, place)
        if header:
            place += header
            below = next((other for other in lines[place : place + 5] if other.strip()), "")
            if below.lstrip().startswith(">"):
                continue
            break
        if _begins_original(lines, place):
            break
        kept.append(line)
        place += 1
    return "\n".join(kept).strip() or text.strip()


def _wrote_header(lines: Sequence[str], place: int) -> int:
    """Return how many lines the header of a quoted reply takes, 0 if there is none."""
    first = lines[place].strip()
    if len(first) > _HEADER_LETTERS or not (_STARTS.match(first) or "@" in first):
        return 0
    joined = ""
    for count, line in enumerate(lines[place : place + 3], start=1):
        joined = f"{joined} {line.strip()}".strip()
        if not line.strip() or len(joined) > _HEADER_LETTERS:
            return 0
        if joined.endswith(":") and _VERB.search(joined) and ("@" in joined or re.search(r"\d", joined)):
            return count
        if joined.endswith((".", "!", "?", ":")) and not re.search(r"\d\.$", joined):
            return 0  # a sentence ends here, and a header is none
    return 0


def _begins_original(lines: Sequence[str], place: int) -> bool:
    """Return whether everything from this line on is an earlier mail."""
    line = lines[place][:_HEADER_LETTERS]
    if _ORIGINAL.fullmatch(line):
        return True
    if _RULE.fullmatch(line):
        return bool(_FROM.match(next((other for other in lines[place + 1 : place + 4] if other.strip()), "")))
    return bool(_FROM.match(line)) and sum(bool(_FIELD.match(other)) for other in lines[place + 1 : place + 6]) >= 2


def strip_signature(text: str) -> str:
    r"""Remove signatures at the end of a mail: who writes is not what it is about.

    - From the last line ``--`` on, if at most 12 lines follow.
    - ``Sent from my phone``, ``Von meinem iPhone gesendet``, ``Get Outlook for iOS``: the line, and up to 8 after it.
    - Notes on confidentiality, from their first line on, if something is left above.
    - A line that is a closing alone (``Best regards``, ``Mit freundlichen Grüßen``, ``LG Ann``), with all below, if
      that is at most 8 lines of 70 letters, none a question and none a postscript. ``Thanks`` and ``Danke`` likewise,
      with at most 3 lines below.
    - If nothing were left, the text stays as it is.

    Example:
        >>> strip_signature("The lamp is dark.\n\nKind regards\nAnn Lee\nExample Ltd\n\nSent from my phone")
        'The lamp is dark.'
    """
    lines = text.strip().split("\n")
    lines = _cut(lines, _last(lines, lambda line: line.strip() in ("--", "—", "__"), 12))
    lines = _cut(lines, _last(lines, _MOBILE.fullmatch, _SIGNATURE_LINES))
    lines = _cut(lines, _first(lines, lambda line: _DISCLAIMER.match(line)))
    filled = [place for place, line in enumerate(lines) if line.strip()]
    # From the top of what may be a signature, so that `Thanks,` above `Best regards` goes too.
    for place in filled[-_SIGNATURE_LINES - 1 :]:
        line = lines[place]
        below = [lines[other] for other in filled if other > place]
        allowed = _SIGNATURE_LINES if _CLOSING.fullmatch(line) else 3 if _THANKS.fullmatch(line) else -1
        if len(below) <= allowed and all(_is_signature_line(other) for other in below):
            lines = _cut(lines, place)
            break
    return "\n".join(lines).strip()


def _is_signature_line(line: str) -> bool:
    short = len(line.strip()) <= _SIGNATURE_LETTERS
    return short and not line.rstrip().endswith("?") and not _POSTSCRIPT.match(line)


def _last(lines: Sequence[str], found: Callable[[str], object], most: int) -> int | None:
    """Return the last line that is found, if no more than ``most`` filled lines follow."""
    below = 0
    for place in range(len(lines) - 1, -1, -1):
        if len(lines[place]) <= _HEADER_LETTERS and found(lines[place]):
            return place
        below += bool(lines[place].strip())
        if below > most:
            return None
    return None


def _first(lines: Sequence[str], found: Callable[[str], object]) -> int | None:
    return next((place for place, line in enumerate(lines) if found(line)), None)


def _cut(lines: list[str], place: int | None) -> list[str]:
    """Return the lines above, unless there is nothing in them."""
    if place is None or not any(line.strip() for line in lines[:place]):
        return lines
    return lines[:place]


def is_auto_reply(subject: str, body: str) -> bool:
    """Return whether a program wrote the mail: an absence note, a failed delivery of a mail, a receipt.

    - The subject, without ``Re:`` and the like, begins with ``Automatic reply``, ``Out of office``,
      ``Abwesenheitsnotiz``, ``Undeliverable``, ``Unzustellbar`` or the like.
    - Or one of the first three lines says so (``This is an automated``, ``Delivery to the following recipients``).
    - Or one of the first three lines says that the writer is away, and the mail says until when or who stands in, and
      it asks nothing: ``I'm out of the office until Friday, can you deliver later?`` is a person's question.

    A parcel that could not be delivered is no auto-reply.

    Example:
        >>> is_auto_reply("AW: Ihre Anfrage", "Ich bin derzeit nicht im Büro und am 4.8. wieder erreichbar.")
        True
        >>> is_auto_reply("Parcel", "My parcel could not be delivered.")
        False
    """
    if _AUTO_SUBJECT.match(strip_subject(subject)):
        return True
    lines = [line.strip() for line in body[:2000].split("\n") if line.strip() and not line.startswith(">")]
    if lines and _GREETING.fullmatch(lines[0]):
        lines = lines[1:]
    start = " ".join(lines[:3])[:400]
    if _AUTO_NOTICE.search(start):
        return True
    return bool(_AWAY.search(start)) and bool(_BACK.search(body[:2000])) and "?" not in body[:2000]
