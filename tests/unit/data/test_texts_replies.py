import pytest

from lightning_transfer.data.texts_replies import (
    is_auto_reply,
    is_forwarded,
    strip_quotes,
    strip_signature,
    strip_subject,
)

OLD = "Did you plug it in?\nBest regards\nSupport"
MARKED = "\n".join(f"> {line}" for line in OLD.split("\n"))


@pytest.mark.parametrize(
    "header",
    [
        "On Tue, 3 Jun 2025 at 10:11, Support <help@example.com> wrote:",
        "On Tue, 3 Jun 2025 at 10:11, Support <help@example.com>\nwrote:",
        "On Jun 3, 2025, at 10:11,\nNorvik Support\n<help@example.com> wrote:",
        "Am 03.06.2025 um 10:11 schrieb Support <help@example.com>:",
        "Am Di., 3. Juni 2025 um 10:11 Uhr schrieb Support <\nhelp@example.com>:",
        "Support <help@example.com> schrieb am Di., 3. Juni 2025, 10:11:",
        "-----Original Message-----\nFrom: Support\nSent: Tuesday\nTo: me\nSubject: x\n",
        "-----Ursprüngliche Nachricht-----\nVon: Support\n",
        "Von: Support <help@example.com>\nGesendet: Dienstag, 3. Juni 2025 10:11\nAn: ich\nBetreff: AW: Hilfe\n",
        "*From:* Support\n*Date:* 3 June\n*To:* me\n",
        f"{'_' * 32}\nVon: Support\nGesendet: heute\nAn: ich\n",
        "##- Please type your reply above this line -##",
        "Bitte antworten Sie oberhalb dieser Linie",
        "--- Antworten Sie bitte über dieser Zeile ---",
    ],
)
@pytest.mark.parametrize("old", [OLD, MARKED])
def test_what_is_quoted_below_goes(header: str, old: str) -> None:
    assert strip_quotes(f"Still dark.\nPlease help.\n\n{header}\n\n{old}\n") == "Still dark.\nPlease help."


def test_answers_between_quoted_lines_stay() -> None:
    text = "Am 3.6.2025 schrieb Support:\n> Welche Nummer?\n17\n\n> Seit wann?\nSeit Mai.\n> Gruß"
    assert strip_quotes(text) == "17\n\nSeit Mai."


@pytest.mark.parametrize(
    "text",
    [
        "On Monday I wrote: it is broken.\nNobody answered.",
        "On Monday your colleague wrote me that\nit takes 3 days. It took 9.",
        "Am Montag kam das Paket 2 Tage zu spät.\nIch schrieb Ihnen 3 Mal:\nkeine Antwort.",
        "The box came from: Berlin\nIt went to: me, but the wrong street.",
        "Von: wem ist das?\nmehr Text\nund noch einer",
        "a > b and 3 < 4",
        "See\n--------------------\nabove",
        "> everything is quoted\n> here",
        "On 3 June 2025 Ann wrote:\n> all that is left",
    ],
)
def test_what_is_no_quote_stays(text: str) -> None:
    assert strip_quotes(text) == text


def test_what_is_passed_on_stays() -> None:
    text = "See below.\n\n---------- Forwarded message ---------\nFrom: Ann\nSent: x\nTo: y\n\n> My lamp is dark."
    assert strip_quotes(text) == text
    assert [is_forwarded(s) for s in ("Fwd: x", "RE: WG: x", "FW: x", "Re: x", "Forward gear")] == [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize(
    ("subject", "left"),
    [
        ("Re: AW: Re[2]: Lampe", "Lampe"),
        ("[Ticket#2025-11] AW: Lampe", "Lampe"),
        ("Lampe [#4711]", "Lampe"),
        ("Re:", ""),
        ("Reset: what now", "Reset: what now"),
        ("[urgent] lamp", "[urgent] lamp"),
    ],
)
def test_subjects(subject: str, left: str) -> None:
    assert strip_subject(subject) == left


@pytest.mark.parametrize(
    "below",
    [
        "Best regards\nAnn Lee",
        "Kind regards,\n\nAnn Lee\nHead of Lamps\nExample Ltd\n1 Mill Street\n+1 202 555 0142",
        "Mit freundlichen Grüßen\nAnn Lee",
        "Viele Gruesse Ann",
        "LG\nAnn",
        "MfG",
        "Danke!\n\nViele Grüße\nAnn",
        "Thanks in advance,\nAnn",
        "-- \nAnn Lee\nExample Ltd",
        "--\nAnn\n\nThis e-mail is confidential and intended only for the addressee. " + "x" * 200,
        "Sent from my iPhone",
        "Von meinem iPhone gesendet",
        "Gesendet von Mail für Windows",
        "Cheers\nAnn\n\nGet Outlook for iOS",
        "Diese E-Mail ist vertraulich und ausschließlich für den Adressaten bestimmt.\n"
        + "Falls nicht: löschen. " * 20,
    ],
)
def test_signatures_go(below: str) -> None:
    assert strip_signature(f"Hello,\n\nthe lamp is dark.\n\n{below}\n") == "Hello,\n\nthe lamp is dark."


@pytest.mark.parametrize(
    "text",
    [
        "Best regards\nAnn",
        "Thanks\nfor the fast help, but the box is still empty and I want my money back, all of it, today.",
        "The lamp is dark.\nThanks\nAnn\nBut also:\nit hums\nand it smells",
        "Dark.\nBest regards\nAnn\nPS: the other one hums.",
        "Dark.\nBest regards\nAnn\nWhen will you answer?",
        "Gruß an Ihren Kollegen, der war nett.\nDie Lampe ist dunkel.",
        "- lamp\n- cable\nboth are missing",
        "I had the message was sent from my phone twice.",
        "Thanks the lamp arrived",
    ],
)
def test_what_is_no_signature_stays(text: str) -> None:
    assert strip_signature(text) == text


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Out of office: lamp", ""),
        ("Automatic reply: lamp", "x"),
        ("AW: Abwesenheitsnotiz: lamp", "x"),
        ("Undeliverable: lamp", "x"),
        ("Lamp", "Hello,\nthis is an automatically generated message."),
        ("Lamp", "Hallo,\nich bin bis zum 4.8. nicht im Büro. In dringenden Fällen hilft Frau Lee."),
        ("Lamp", "I am currently on annual leave and will be back on 4 August."),
        ("Lamp", "Delivery has failed to these recipients:\nann@example.com"),
        ("Lamp", "Guten Tag,\n\nIhre Nachricht an ann@example.com konnte nicht zugestellt werden."),
    ],
)
def test_programs(subject: str, body: str) -> None:
    assert is_auto_reply(subject, body)


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Parcel", "My parcel could not be delivered, why?"),
        ("Paket", "Das Paket konnte nicht zugestellt werden."),
        ("Delivery", "I'm out of the office until Friday, can you deliver later?"),
        ("Urlaub", "Ich bin im Urlaub und mein Paket kommt morgen. Bitte zum Nachbarn."),
        ("Automation", "Automatic lights are dark."),
        ("Reading lamp", "dark"),
        ("Lamp", "It is dark.\nNo answer since May.\nI asked three times.\nThis is an automated answer, I was told."),
        ("", ""),
    ],
)
def test_people(subject: str, body: str) -> None:
    assert not is_auto_reply(subject, body)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["On a day ", "Am 1 ", "On 1\n", "Von: x\n", "> a\n", "a@b ", " ", "\n", "_", "-", "Best, "]
)
def test_long_texts_end(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    strip_quotes(text)
    strip_signature(text)
    strip_subject(text[:2000])
    is_auto_reply(text[:2000], text)
