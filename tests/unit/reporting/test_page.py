import pytest
from markdown_it import MarkdownIt

from lightning_transfer.reporting.page import escape_markdown, render, render_part

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](data:text/html,alert)",
    "http://evil.example www.evil.example a@evil.example",
    "`<img src=x onerror=alert(1)>`",
    "``<img src=x onerror=alert(1)>`` `ok` ``",
    "a | b\n# heading\n- item",
    "1. one",
    "+ item",
    "&lt;b&gt; *strong* _em_ ~~del~~ $x$",
]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    """Oracle: a Markdown library; what a reader sees is the text."""
    import html
    import re

    page = READER.render(f"- {escape_markdown(text)}")
    assert set(re.findall(r"<(\w+)", page)) <= {"ul", "li"}
    shown = html.unescape(re.sub(r"<[^>]+>", "", page)).strip()
    assert shown.replace("\\", "") == " ".join(text.split())


@pytest.mark.parametrize("text", NASTY)
def test_a_sentence_with_code_is_harmless_too(text: str) -> None:
    import re

    from lightning_transfer.reporting.page import _said, _said_in_markdown

    sentence = f"Of “{text}” run `python -m recipes.vision test RUN` and {text}."
    page = READER.render(_said_in_markdown(sentence))
    assert set(re.findall(r"<(\w+)", page)) <= {"p", "code"}
    assert "<code>python -m recipes.vision test RUN</code>" in page
    assert set(re.findall(r"<(\w+)", _said(sentence))) <= {"code"}


def test_every_value_is_escaped_without_the_templates_doing() -> None:
    card = {"name": "<b>", "limits": ["<i>"], "sentences": [], "splits": [], "train_counts": {}, "metrics": []}
    assert "<b>" not in render("model_card.md.j2", {"card": card})
    assert "&lt;i&gt;" in render("model_card.md.j2", {"card": card})


def test_a_part_that_cannot_be_filled_is_empty_and_a_missing_key_is_not() -> None:
    assert render_part("sections/curves.html.j2", {"section": {"missing": ""}, "curve_charts": 3}) == ""
    assert render_part("sections/environment.html.j2", {"section": {}}).strip() == ""
    assert render_part("sections/environment.html.j2", {"section": {}})
    found = render_part("sections/environment.html.j2", {"section": {"facts": [{"name": "<b>", "value": "'\""}]}})
    assert "&lt;b&gt;" in found
    assert "<b>" not in found
