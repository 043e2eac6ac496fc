"""Write the sample set of tickets, byte for byte the same each time: ``python -m recipes.nlp.sample.make``.

Norvik, a shop for lamps, thermostats and cameras, does not exist, nor do its customers. Every message was written by
hand for this set (``phrases/``: a section for each language and queue, a message a line); the maker puts tickets
together from them: who writes, when, in which mail program, with which details, slips, quoted replies and signatures.
Addresses are of example.com, telephone numbers of ranges that are kept free for films, card and account numbers those
of tests.

What the set is to show, and `Sample` knows: customers with several tickets, near-duplicates, automatic replies, wrong
labels, and drift: a strike in April, higher prices from June, a new product from mid July.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from recipes.nlp.sample.dress import Customer, Dice, as_html, day, fill, pick_product, quote, signature, with_slips

__all__ = ["COLUMNS", "OUT_OF_SCOPE", "PATH", "QUEUES", "Sample", "make_sample", "read_phrases", "write_csv"]

FOLDER = Path(__file__).parent
PATH = FOLDER / "tickets.csv"
COLUMNS = ("id", "created", "customer", "language", "channel", "subject", "body", "queue")
OUT_OF_SCOPE = "out_of_scope"
QUEUES = {
    "billing": 1.15,
    "account": 1.0,
    "delivery": 1.35,
    "returns": 1.0,
    "technical": 1.35,
    "cancellation": 0.9,
    "product": 1.1,
    "complaint": 0.85,
    OUT_OF_SCOPE: 0.75,
}
"""Share of each queue in a quiet month, relative to the others."""

_START, _DAYS = datetime(2025, 1, 6, 6, 0), 273  # nine months
_STRIKE = (datetime(2025, 4, 3), datetime(2025, 5, 2))
_PRICES = datetime(2025, 6, 1)
_LAUNCH = datetime(2025, 7, 15)
_NUM_CUSTOMERS, _NUM_TICKETS = 300, 720
_NUM_COPIES, _NUM_AUTO, _NUM_WRONG = 26, 16, 16
_NEW_PRODUCT = "Lumo Hub"

_FIRST = "Ann Ben Carla Dev Eva Femi Greta Hugo Ines Jonas Kim Lena Marek Nora Omar Paula Rosa Sven Tina Uwe Vera Will"
_LAST = "Adler Brandt Costa Dorn Ekström Fuchs Grant Huber Ivers Jansen Köhler Lange Moreau Novak Okafor Peters Rossi"
_HOSTS = ("example.com", "example.org", "mail.example.net")
_SUBJECTS = {
    "en": ("Question", "Help", "Problem", "Order {order}", "Urgent!", "Customer {customer}", "my request", "{product}"),
    "de": ("Frage", "Hilfe", "Problem", "Bestellung {order}", "Dringend!", "Kd-Nr. {customer}", "Anfrage", "{product}"),
}

Phrases = dict[tuple[str, str], list[str]]


@dataclass
class Sample:
    """The tickets, and what is known of them because they were made.

    Attributes:
        rows: Column -> cell, in the order of time.
        wrong: Id -> the right label of a ticket whose ``queue`` is wrong.
        auto_replies: Ids of what no person wrote.
        copies: Id of a ticket that was sent again -> id of the first one.
        threads: Ids of tickets that quote an earlier mail.
        private: Id -> addresses, telephone, card and account numbers in what the customer wrote.
        messages: Id -> the message that the ticket is about, its details still as places in braces; not of
            a ticket that was sent again.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    auto_replies: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)
    threads: set[str] = field(default_factory=set)
    private: dict[str, list[str]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Ticket:
    customer: Customer
    created: datetime
    queue: str
    channel: str
    subject: str
    body: str
    message: str
    private: tuple[str, ...] = ()
    thread: bool = False
    auto: bool = False
    wrong: str = ""
    first: _Ticket | None = None


class _Deck:
    """Deals the messages of a section so that none comes again before all came."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._left: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def deal(self, key: tuple[str, str], items: list[str]) -> str:
        left = self._left[key]
        if not left:
            left.extend(items)
        return left.pop(self._dice.number(0, len(left) - 1))


def read_phrases(folder: Path = FOLDER / "phrases") -> Phrases:
    """Return the hand-written phrases: language and section -> lines."""
    phrases: Phrases = {}
    for file in sorted(folder.glob("*.txt")):
        section: list[str] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                language, _, name = line.strip("[]").partition(" ")
                section = phrases.setdefault((language, name), [])
            elif line.strip():
                section.append(line.strip())
    return phrases


def make_sample(seed: int = 0) -> Sample:
    """Put the tickets together.

    Args:
        seed: Another one makes another set; ``tickets.csv`` is that of 0.
    """
    dice, phrases = Dice(seed), read_phrases()
    deck = _Deck(dice)
    customers = [_customer(number, dice) for number in range(_NUM_CUSTOMERS)]
    tickets = [
        _ticket(dice.pick(customers), phrases, deck, dice) for _ in range(_NUM_TICKETS - _NUM_AUTO - _NUM_COPIES)
    ]
    people = list(tickets)
    tickets += [_auto_reply(dice.pick(people), phrases, dice) for _ in range(_NUM_AUTO)]
    tickets += [_again(_long_enough(people, dice), dice) for _ in range(_NUM_COPIES)]
    for _ in range(_NUM_WRONG):
        place = dice.number(0, len(people) - 1)
        ticket = people[place]
        other = dice.pick([other.queue for other in people if _top(other.queue) != _top(ticket.queue)])
        if not ticket.wrong:
            tickets[place] = people[place] = replace(ticket, queue=other, wrong=ticket.queue)
    return _collect(tickets)


def _customer(number: int, dice: Dice) -> Customer:
    name = f"{dice.pick(_FIRST.split())} {dice.pick(_LAST.split())}"
    language = "de" if dice.chance(0.4) else "en"
    plain = name.lower().replace(" ", ".").replace("ö", "oe").replace("ü", "ue")
    phones = ("+1 202-555-01{:02}", "+44 20 7946 0{:03}", "+1 (212) 555-01{:02}")
    if language == "de":
        phones = ("030 23125 {:03}", "0171 39200{:02}", "+49 30 23125 {:03}")
    form = dice.pick(phones)
    low, high = (100, 999) if ":03" in form else (10, 99)
    return Customer(
        number=str(300100 + 7 * number),
        name=name,
        language=language,
        email=f"{plain}{dice.pick(('', '', str(dice.number(60, 99))))}@{dice.pick(_HOSTS)}",
        phone=form.format(dice.number(low, high)),
        company=dice.chance(0.15),
        mobile=dice.chance(0.3),
        since=_START + timedelta(days=dice.number(0, _DAYS - 5), minutes=dice.number(0, 900)),
    )


def _ticket(customer: Customer, phrases: Phrases, deck: _Deck, dice: Dice) -> _Ticket:
    """Return one ticket of a customer, some weeks after its first at most."""
    created = min(customer.since + timedelta(days=dice.number(0, 45), minutes=dice.number(0, 840)), _end(dice))
    language = customer.language
    product = _NEW_PRODUCT if created > _LAUNCH and dice.chance(0.35) else pick_product(dice)
    queue = dice.weighted(_shares(created))
    label, core = _message(queue, language, created, phrases, deck, dice)
    private: list[str] = []

    def filled(text: str) -> str:
        return fill(text, customer, created, product, dice, private)

    channel = dice.pick(("email", "email", "email", "email", "web", "web", "chat"))
    core = with_slips(core, dice) if dice.chance(0.35) else core
    parts = [core]
    section = {name: phrases[language, name] for name in ("detail", "aside", "story", "opening", "closing", "followup")}
    for _ in range(dice.pick((0, 1, 1, 2, 2, 3) if channel != "chat" else (0, 0, 0, 1))):
        detail = dice.pick(section["detail"])
        if detail not in parts:
            parts.insert(dice.number(0, 1) if len(parts) == 1 else len(parts), detail)
    if channel != "chat":
        if dice.chance(0.22):
            parts.append(dice.pick(section["aside"]))
        if dice.chance(0.1):  # two matters in one mail; the first is the one that counts
            _, second = _message(dice.weighted(_shares(created)), language, created, phrases, deck, dice)
            parts.append(second)
        if dice.chance(0.06):  # what it is about stands after the first hundred words, or after several hundred
            stories = dict.fromkeys(dice.pick(section["story"]) for _ in range(dice.pick((1, 1, 2, 4))))
            details = dict.fromkeys(dice.pick(section["detail"]) for _ in range(3 * len(stories) - 2))
            parts = list(dict.fromkeys([*stories, *details, *parts]))
    thread = channel == "email" and dice.chance(0.22)
    if thread and dice.chance(0.7):
        parts.insert(0, dice.pick(section["followup"]))
    text = filled(dice.pick((" ", " ", "\n", "\n\n")).join(parts))
    subject = "" if channel == "chat" else filled(_subject(core, language, dice))
    if channel != "chat" and dice.chance(0.8):
        text = f"{dice.pick(section['opening'])}\n\n{text}"
    if channel == "email" or (channel == "web" and dice.chance(0.3)):
        if dice.chance(0.8):
            text = f"{text}\n\n{dice.pick(section['closing'])}\n{signature(customer, dice)}"
    if thread:
        subject = f"{dice.pick(('Re: ', 'AW: ' if language == 'de' else 'RE: '))}{subject}"
        if dice.chance(0.4):
            subject = f"{subject} [Ticket#{dice.number(10000, 99999)}]"
        answer = (
            f"{'Hallo' if language == 'de' else 'Hello'},\n{dice.pick(phrases[language, 'reply'])}\n\nNorvik Support"
        )
        text = quote(text, answer, customer, created, dice)
    if channel == "email" and dice.chance(0.15):
        text = as_html(text, dice)
    return _Ticket(customer, created, label, channel, subject, text, core, tuple(private), thread=thread)


def _message(
    queue: str, language: str, created: datetime, phrases: Phrases, deck: _Deck, dice: Dice
) -> tuple[str, str]:
    """Return the label and the message; of a new product only when it is sold."""
    if created > _LAUNCH:
        late = [line.rpartition(" @") for line in phrases[language, "late"]]
        own = [(label, text) for text, _, label in late if _top(label) == queue]
        if own and dice.chance(0.3):
            return dice.pick(own)
    labels = [name for tongue, name in phrases if tongue == language and _top(name) == queue]
    label = dice.pick(labels)
    return label, deck.deal((language, label), phrases[language, label])


def _shares(when: datetime) -> dict[str, float]:
    """Return what people write about at a time."""
    shares = dict(QUEUES)
    if _STRIKE[0] <= when <= _STRIKE[1]:
        shares["delivery"] *= 2
    if when >= _PRICES:
        shares["cancellation"] *= 1.6
        shares["complaint"] *= 1.4
    return shares


def _subject(core: str, language: str, dice: Dice) -> str:
    """Return a subject: none, one that says little, or the first words of the message."""
    kind = dice.number(0, 9)
    if kind == 0:
        return ""
    if kind < 6:
        return dice.pick(_SUBJECTS[language])
    words = core.split()[: dice.number(3, 6)]
    return " ".join(words).rstrip(".,:;!?(")


def _auto_reply(ticket: _Ticket, phrases: Phrases, dice: Dice) -> _Ticket:
    """Return what a program sends back to the answer of the support team."""
    language = ticket.customer.language
    subject, _, body = dice.pick(phrases[language, "auto_reply"]).partition(" | ")
    created = ticket.created + timedelta(hours=dice.number(2, 60))
    values = {
        "subject": ticket.subject or "Norvik",
        "date": day(created + timedelta(days=dice.number(3, 20)), language),
        "email": ticket.customer.email,
    }
    body = f"{dice.pick(phrases[language, 'opening'])}\n\n{body.format(**values)}"
    return replace(
        ticket, created=created, channel="email", subject=subject.format(**values), body=body, auto=True, private=()
    )


def _long_enough(tickets: list[_Ticket], dice: Dice) -> _Ticket:
    """Return a ticket with so many letters that a small change leaves it nearly the same."""
    return dice.pick([ticket for ticket in tickets if len(ticket.body) > 150 and "<html>" not in ticket.body])


def _again(ticket: _Ticket, dice: Dice) -> _Ticket:
    """Return a ticket that an impatient customer sends again, with little or nothing changed."""
    body = ticket.body
    change = dice.number(0, 3)
    if change == 1:
        body = body.replace(",\n\n", "\n\n", 1)
    elif change == 2:
        body = body.replace(".", "!", 1).replace("please", "PLEASE").replace("bitte", "BITTE")
    elif change == 3:
        body = body.replace("\n\n", "\n", 1).replace(" ", "  ", 1)
    return replace(ticket, created=ticket.created + timedelta(hours=dice.number(1, 70)), body=body, first=ticket)


def _collect(tickets: list[_Ticket]) -> Sample:
    """Number the tickets in the order of time."""
    ordered = sorted(tickets, key=lambda ticket: ticket.created)
    names = {id(ticket): f"T-{number:05}" for number, ticket in enumerate(ordered, start=1)}
    # A label that was changed later replaced its ticket, so a copy still knows the one before.
    bodies = {(ticket.customer.number, ticket.subject, ticket.body): ticket for ticket in ordered if not ticket.first}
    sample = Sample()
    for ticket in ordered:
        name = names[id(ticket)]
        cells = (ticket.created.isoformat(timespec="minutes"), ticket.customer.number, ticket.customer.language)
        values = (name, *cells, ticket.channel, ticket.subject, ticket.body, ticket.queue)
        sample.rows.append(dict(zip(COLUMNS, values, strict=True)))
        if ticket.wrong:
            sample.wrong[name] = ticket.wrong
        if ticket.auto:
            sample.auto_replies.add(name)
            continue
        if not ticket.first:
            sample.messages[name] = ticket.message
        if ticket.thread:
            sample.threads.add(name)
        if ticket.first:
            first = bodies[ticket.first.customer.number, ticket.first.subject, ticket.first.body]
            sample.copies[name] = names[id(first)]
        if ticket.private:
            sample.private[name] = list(ticket.private)
    return sample


def _end(dice: Dice) -> datetime:
    return _START + timedelta(days=_DAYS - dice.number(0, 2), minutes=dice.number(0, 900))


def _top(label: str) -> str:
    return label.split("/")[0]


def write_csv(sample: Sample, path: Path = PATH) -> Path:
    """Write the tickets as CSV in UTF-8, line breaks in quotes, rows ended by a line feed."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sample.rows)
    path.write_bytes(stream.getvalue().encode())
    return path


if __name__ == "__main__":
    made = make_sample()
    print(f"{write_csv(made)}: {len(made.rows)} tickets of {len({row['customer'] for row in made.rows})} customers")
