import html
import random
import unicodedata

import pytest

from lightning_transfer.data.texts_clean import (
    TextCleaning,
    html_to_text,
    is_html,
    normalize_characters,
    tidy_whitespace,
)

PLAIN = TextCleaning(phones=False)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("a<br>b<br/><br>c", "a\nb\n\nc"),
        ("a\n   b <b>c</b>d", "a b cd"),
        ("<ul><li>x</li><li>y</li></ul>z", "- x\n- y\nz"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("<html><head><title>t</title><style>p{}</style></head><body>x<script>1<2</script></body></html>", "x"),
        ("a<blockquote>b<br>c<blockquote>d</blockquote></blockquote>e", "a\n\n> b\n> c\n\n> > d\n\ne"),
        ("<pre>a\n  b</pre>c", "a\nb\n\nc"),
        ("a<!-- <p>hidden</p> -->b<!-- open", "ab<!-- open"),
        ("<p>1 < 2 & 3 > 2 &amp;&lt;b&gt;</p>", "1 < 2 & 3 > 2 &<b>"),
        ("<head><p>lost head<body>kept</p>", "kept"),
        ('<a href="https://example.com/x">here</a>', "here"),
        ("<!DOCTYPE html><p>x", "x"),
    ],
)
def test_html(source: str, text: str) -> None:
    assert is_html(source)
    assert html_to_text(source) == text


@pytest.mark.parametrize(
    "text", ["a < b > c", "Ann <ann@example.com>", "<3 you", "List<String>", "<https://example.com>", ""]
)
def test_what_is_no_html(text: str) -> None:
    assert not is_html(text)


def test_any_escaped_text_comes_back() -> None:
    dice = random.Random(0)
    for _ in range(200):
        text = "".join(dice.choices("ab <>&\"'ü€", k=30))
        expected = tidy_whitespace(text)
        assert html_to_text(f"<p>{html.escape(text)}</p>") == expected
        assert html_to_text(f"<p>{html.escape(text).encode('ascii', 'xmlcharrefreplace').decode()}</p>") == expected


def test_characters_by_their_categories() -> None:
    every = [chr(code) for code in (*range(0x3000), *range(0xFE00, 0x10000), 0x1F600)]
    for character in every:
        result = normalize_characters(f"a{character}b")[1:-1]
        category = unicodedata.category(character)
        if category == "Zs":
            assert result == " ", hex(ord(character))
        elif character in "\n\x0b\x0c\r\x85\u2028\u2029":
            assert result == "\n", hex(ord(character))
        elif category == "Cc" and character != "\t":
            assert result == "", hex(ord(character))
        elif category == "L" or character in "\t\u200c\u200d":
            assert result == unicodedata.normalize("NFC", character)
    assert normalize_characters("a\ud83db") == "a\ufffdb"
    assert normalize_characters("a\r\nb\rc\n\nd") == "a\nb\nc\n\nd"
    family = "\U0001f468\u200d\U0001f469"
    assert normalize_characters(f"\ufeffz\u200be\u0308ro\u202e {family}") == f"zëro {family}"


def test_normal_text_is_composed_and_stays_as_it_is() -> None:
    dice = random.Random(1)
    for _ in range(100):
        text = "".join(chr(dice.choice((dice.randrange(32, 0x250), dice.randrange(0x300, 0x340)))) for _ in range(40))
        once = normalize_characters(text)
        assert unicodedata.is_normalized("NFC", once)
        assert normalize_characters(once) == once


def test_the_order_of_the_steps() -> None:
    body = (
        "<p>Hi,</p><p>the la&shy;mp is&nbsp;dark. Pay to DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111.</p>"
        "<p>Best regards<br>Ann</p><p>On 3 June 2025, Support &lt;help@example.com&gt; wrote:</p>"
        "<blockquote>Is it plugged in?</blockquote>"
    )
    text, counts = PLAIN.clean(" Re:  [Ticket#17]  Lamp of ann@example.com ", body)
    assert text == "Lamp of [EMAIL]\n\nHi,\n\nthe lamp is dark. Pay to [IBAN], card [CARD]."
    assert counts == {
        "html": 1, "characters": 1, "subject prefixes": 1, "quotes": 1, "signatures": 1, "emails": 1, "ibans": 1,
        "cards": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("switch", "left"),
    [
        ("html", "<i>"),
        ("quotes", "> old"),
        ("signatures", "Best regards"),
        ("emails", "a@example.com"),
        ("ibans", "DE89370400440532013000"),
        ("cards", "4111111111111111"),
    ],
)
def test_each_step_has_its_switch(switch: str, left: str) -> None:
    body = "a@example.com DE89370400440532013000 4111111111111111<i></i>\n\n> old\n\nBest regards\nAnn".replace(
        "\n", "<br>\n"
    )
    plain = body if switch == "html" else html_to_text(body.replace("&gt;", ">"))
    assert left not in PLAIN.clean("", plain.replace("<i></i>", "<i> </i>"))[0]
    off = TextCleaning(**{**PLAIN.to_dict(), switch: False, "phone_regions": ("DE",)})
    assert left in off.clean("", plain)[0]


def test_phones_have_their_switch() -> None:
    pytest.importorskip("phonenumbers")
    assert TextCleaning().clean("", "Ring 0171 3920012")[0] == "Ring [PHONE]"
    assert TextCleaning(phone_regions=("US",)).clean("", "Ring 0171 3920012")[0] == "Ring 0171 3920012"
    assert PLAIN.clean("", "Ring 0171 3920012")[0] == "Ring 0171 3920012"


def test_what_is_passed_on_keeps_its_quotes() -> None:
    assert (
        PLAIN.clean("WG: Lampe", "Bitte prüfen.\n> Sie ist dunkel.")[0] == "Lampe\n\nBitte prüfen.\n> Sie ist dunkel."
    )


def test_cleaning_twice_changes_nothing_more() -> None:
    text, _ = PLAIN.clean("AW: Lampe", "Hallo,\n\ndunkel\u200b.\n\n\n\nLG\nAnn\n\nAm 3.6. schrieb Bo:\n> an?")
    assert PLAIN.clean("", text) == (text, {})


def test_plain_values() -> None:
    cleaning = TextCleaning(emails=False, phone_regions=("FR",))
    assert TextCleaning.from_dict({**cleaning.to_dict(), "later": 1}) == cleaning
    assert TextCleaning.from_dict({}) == TextCleaning()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<p>", "</", "<", "&", "<blockquote>", "<p x='", "<![", "\u200b", "\n "]
)
def test_long_texts_end(piece: str) -> None:
    PLAIN.clean("", "<br>" + piece * (200_000 // len(piece)))
