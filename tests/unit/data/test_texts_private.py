import random
import re
import sys
from email.utils import formataddr, getaddresses

import pytest

from lightning_transfer.data.texts_private import is_iban, luhn, mask_cards, mask_emails, mask_ibans, mask_phones
from lightning_transfer.errors import DataError

LONG = 300_000


def test_addresses_that_the_standard_library_finds_are_masked() -> None:
    dice = random.Random(0)
    letters = "abcXYZ09._+-%"
    addresses = [
        f"a{''.join(dice.choices(letters, k=dice.randint(0, 12))).strip('.').replace('..', '.')}z"
        f"@{dice.choice(['example', 'mail.example', 'a-b.example'])}.{dice.choice(['com', 'co.uk', 'museum'])}"
        for _ in range(200)
    ]
    text = ", ".join(formataddr(("Ann", address)) for address in addresses)
    assert [address for _, address in getaddresses([text])] == addresses
    masked, count = mask_emails(text)
    assert count == 200
    assert masked == ", ".join(["Ann <[EMAIL]>"] * 200)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mail a.b@example.com.", "Mail [EMAIL]."),
        ("mailto:a@example.com?x", "mailto:[EMAIL]?x"),
        ("jörg@müller.example", "[EMAIL]"),
        ("a@b", "a@b"),
        ("at 5 @ home. ok", "at 5 @ home. ok"),
        ("a@@example.com", "a@@example.com"),
        ("@example.com", "@example.com"),
    ],
)
def test_addresses(text: str, masked: str) -> None:
    assert mask_emails(text)[0] == masked


def test_exactly_one_check_digit_of_ten_fits() -> None:
    dice = random.Random(0)
    for length in range(12, 19):
        body = [dice.randint(0, 9) for _ in range(length)]
        doubled = [sum(divmod(2 * digit, 10)) if place % 2 == 0 else digit for place, digit in enumerate(body[::-1])]
        right = -sum(doubled) % 10
        number = "".join(map(str, body))
        assert [digit for digit in range(10) if luhn(f"{number}{digit}")] == [right]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("5555555555554444", "[CARD]"),
        ("3782 822463 10005.", "[CARD]."),
        ("4111-1111-1111-1111", "[CARD]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("1000000000000008", "1000000000000008"),
        ("X4111111111111111", "X4111111111111111"),
        ("00340434161094021501", "00340434161094021501"),
        ("411111111111", "411111111111"),
        ("٤١١١١١١١١١١١١١١١", "٤١١١١١١١١١١١١١١١"),
    ],
)
def test_cards(text: str, masked: str) -> None:
    assert mask_cards(text) == (masked, int(masked != text))


# One example of each country, from the registry of ISO 13616.
EXAMPLES = """AT611904300234573201 BE68539007547034 CH9300762011623852957 CZ6508000000192000145399
DE89370400440532013000
DK5000400440116243 ES9121000418450200051332 FI2112345600000785 FR1420041010050500013M02606 GB29NWBK60161331926819
GR1601101250000000012300695 IE29AIBK93115212345678 IT60X0542811101000000123456 LU280019400644750000
NL91ABNA0417164300 NO9386011117947 PL61109010140000071219812874 PT50000201231234567890154 SE4550000000058398257466
MT84MALT011000012345MTLCAST001S TR330006100519786457841326 LI21088100002324013AA""".split()


@pytest.mark.parametrize("number", EXAMPLES)
def test_account_numbers_of_many_countries(number: str) -> None:
    groups = " ".join(re.findall(".{1,4}", number))
    for form in (number, groups, groups.lower()):
        assert mask_ibans(f"to {form} please 12") == ("to [IBAN] please 12", 1)
    right = [f"{number[:2]}{check:02}{number[4:]}" for check in range(2, 99)]
    assert [form for form in right if is_iban(form)] == [number]
    assert not is_iban(number[:-1])
    assert mask_ibans(f"{number}0")[1] == 0


def test_two_account_numbers_and_what_is_none() -> None:
    text = f"{EXAMPLES[0]}, then {EXAMPLES[4]}! RE12345678901234567890 XX89370400440532013000"
    assert mask_ibans(text) == ("[IBAN], then [IBAN]! RE12345678901234567890 XX89370400440532013000", 2)
    assert mask_ibans("DE89  370400440532013000")[1] == 0


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +49 30 23125 123 please", "call [PHONE] please"),
        ("0171 3920012", "[PHONE]"),
        ("030/23125123", "[PHONE]"),
        ("(202) 555-0142 or +44 20 7946 0018", "[PHONE] or [PHONE]"),
        ("Tel.: 555-0142", "Tel.: [PHONE]"),
        ("call me on 12 34 56 78", "call me on [PHONE]"),
        ("Handy 0000 111222", "Handy [PHONE]"),
        ("order 2025-000481", "order 2025-000481"),
        ("Bestellnummer: 0301234567", "Bestellnummer: 0301234567"),
        ("invoice RE-20250314-77 of 12.03.2025 14:00", "invoice RE-20250314-77 of 12.03.2025 14:00"),
        ("#2025550143", "#2025550143"),
        ("EUR 1.234,56 for 2 in 2025", "EUR 1.234,56 for 2 in 2025"),
    ],
)
def test_phones(text: str, masked: str) -> None:
    pytest.importorskip("phonenumbers")
    assert mask_phones(text) == (masked, masked.count("[PHONE]"))


def test_phones_of_other_countries() -> None:
    pytest.importorskip("phonenumbers")
    assert mask_phones("01 23 45 67 89", ["DE"])[1] == 0
    assert mask_phones("01 23 45 67 89", ["FR"]) == ("[PHONE]", 1)
    with pytest.raises(DataError, match="No telephone region is `UK`"):
        mask_phones("0123456789", ["UK"])


def test_phones_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    assert mask_phones("no digits, so nothing is needed")[1] == 0
    with pytest.raises(DataError, match="Run `pip install phonenumbers`, or set `phones: false`"):
        mask_phones("0171 3920012")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["a", "a.", "a@", "1 ", "DE", "DE12 ", "4", "4-", "tel ", "@a.", "+(1"])
def test_long_texts_end(piece: str) -> None:
    text = piece * (LONG // len(piece))
    for mask in (mask_emails, mask_cards, mask_ibans):
        mask(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["1 ", "tel ", "+(1", "0171 3920012 "])
def test_long_texts_end_with_phones(piece: str) -> None:
    pytest.importorskip("phonenumbers")
    mask_phones(piece * (LONG // 10 // len(piece)))
