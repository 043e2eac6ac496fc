"""Numbers as they are spoken."""

from __future__ import annotations

__all__ = ["cardinal", "ordinal", "spoken_digits"]

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = dict(
    pair.split("/")
    for pair in "one/first two/second three/third five/fifth eight/eighth nine/ninth twelve/twelfth".split()
)


def cardinal(value: int) -> str:
    """Spell a whole number below a million.

    Example:
        >>> cardinal(0), cardinal(45), cardinal(307), cardinal(12_040)
        ('zero', 'forty five', 'three hundred and seven', 'twelve thousand and forty')
    """
    if not 0 <= value < 1_000_000:
        raise ValueError(f"Expected a number of 0 to 999,999, got {value}.")
    if value < 20:
        return _SMALL[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens] + (f" {_SMALL[ones]}" if ones else "")
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        return f"{_SMALL[hundreds]} hundred" + (f" and {cardinal(rest)}" if rest else "")
    thousands, rest = divmod(value, 1000)
    joint = " and " if rest < 100 else " "
    return f"{cardinal(thousands)} thousand" + (f"{joint}{cardinal(rest)}" if rest else "")


def ordinal(value: int) -> str:
    """Spell a place in a row.

    Example:
        >>> ordinal(1), ordinal(12), ordinal(20), ordinal(31)
        ('first', 'twelfth', 'twentieth', 'thirty first')
    """
    *front, last = cardinal(value).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = (last[:-1] + "ie" if last.endswith("y") else last) + "th"
    return " ".join([*front, last])


def spoken_digits(digits: str) -> str:
    """Read a number digit by digit, as telephone numbers are.

    Example:
        >>> spoken_digits("4072")
        'four zero seven two'
    """
    return " ".join(_SMALL[int(digit)] for digit in digits)
