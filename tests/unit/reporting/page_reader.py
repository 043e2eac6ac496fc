"""Read a page as a browser would, to see what of it could do something."""

from __future__ import annotations

from html.parser import HTMLParser

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "div", "span"),
    *(
        "h1",
        "h2",
        "h3",
        "p",
        "a",
        "ol",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "br",
    ),
    *("strong", "code", "pre", "details", "summary", "figure", "figcaption", "img", "blockquote"),
    *("svg", "line", "text", "circle", "rect", "path"),
    *("del", "ins", "audio"),
}
VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Collects elements, attributes and text; fails on what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, on one line."""
        return " ".join("".join(self.words).split())

    def check(self) -> None:
        """Assert that nothing on the page runs, and that nothing is fetched."""
        assert set(self.tags) <= ALLOWED, set(self.tags) - ALLOWED
        for tag, name, value in self.attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "href":
                assert value.startswith("#"), value
            elif name == "src" and tag == "audio":
                assert value.startswith("data:audio/wav;base64,"), value[:60]
            elif name == "src":
                assert value.startswith("data:image/jpeg;base64,"), value[:60]
            elif name == "style":
                assert value.startswith(("--colour: var(--c", "--share: ")), value
            else:
                assert "url(" not in value or name in ("alt", "aria-label", "title", "content"), value
            assert name not in ("srcdoc", "action", "formaction", "xlink:href", "background", "poster"), name
