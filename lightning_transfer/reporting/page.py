"""Fill a template in, with every text escaped, and write the page whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.errors import TransferError
from lightning_transfer.files import write_text
from lightning_transfer.reporting import numbers

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["STRANGE", "escape_markdown", "render", "render_part", "write_page"]

STRANGE = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
"""What goes wrong where a file of another version, or one changed by hand, holds something else than expected."""

_TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!|~$])")
# What our own sentences set between backticks; nothing that could end the code or begin HTML.
_CODE = re.compile(r"`([\w .,/:='\"\[\]-]+)`")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template of ours with its values.

    Every value is escaped, without the template's doing: by Jinja in ``.html``, by `escape_markdown` in ``.md``.

    Raises:
        TransferError: If Jinja is not installed.
    """
    return _environment(".md" in template).get_template(template).render(**values)


def render_part(template: str, values: Mapping[str, Any]) -> str:
    """Return a rendered template as markup that another template does not escape again; empty if it cannot be filled.

    The values are those of files that may have another form than expected; one part of a page must not take the others
    away.
    """
    from jinja2 import TemplateError
    from markupsafe import Markup

    try:
        return Markup(render(template, values) or " ")  # noqa: S704 - every value in it was escaped
    except (TemplateError, *STRANGE):
        return ""


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Write a rendered template. An earlier one is replaced: it is derived from the same files."""
    write_text(path, render(template, values))
    return path


def escape_markdown(value: object) -> str:
    """Return a text that Markdown and HTML show as it is, on one line.

    Example:
        >>> escape_markdown("<b>@www.example</b>")
        '&lt;b&gt;&#64;www&#46;example&lt;/b&gt;'
    """
    if hasattr(value, "__html__"):
        return str(value)  # escaped before
    text = _escape(" ".join(str(value).split()))
    # At the start of a line these begin a list.
    return re.sub(r"^([-+](?=\s|$)|\d+(?=[.)](\s|$)))", lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", text)


@cache
def _environment(markdown: bool) -> Environment:
    try:
        from jinja2 import ChainableUndefined, Environment, FileSystemLoader
    except ImportError as error:  # torch brings it, but need not for ever
        raise TransferError("A report needs Jinja: `pip install 'lightning-transfer[report]'`.") from error
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=not markdown,  # noqa: S701 - Markdown is escaped by the line below
        finalize=escape_markdown if markdown else None,
        # A key that a file lacks is empty, as far down as one asks.
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "count": numbers.count,
            "interval": numbers.interval,
            "label": numbers.metric_label,
            "number": numbers.number,
            "said": _said_in_markdown if markdown else _said,
            "seconds": numbers.seconds,
            "share": numbers.percent,
            "share_interval": numbers.percent_interval,
            "signed": numbers.signed,
            "significant": numbers.significant,
            "usable": numbers.usable,
        }
    )
    environment.globals["style"] = _TEMPLATES.joinpath("style.css").read_text(encoding="utf-8")
    environment.globals["speech_style"] = _TEMPLATES.joinpath("speech.css").read_text(encoding="utf-8")
    return environment


def _said(value: object) -> str:
    """Return an escaped sentence in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = _CODE.split(str(value))
    text = "".join(f"<code>{escape(part)}</code>" if place % 2 else escape(part) for place, part in enumerate(parts))
    return Markup(text)  # noqa: S704 - escaped before


def _said_in_markdown(value: object) -> str:
    """Return an escaped sentence in which what stands between backticks is code, which Markdown shows as it is."""
    from markupsafe import Markup

    parts = _CODE.split(" ".join(str(value).split()))
    text = "".join(f"`{part}`" if place % 2 else _escape(part) for place, part in enumerate(parts))
    return Markup(text)  # noqa: S704 - escaped before


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKDOWN.sub(r"\\\1", text)
    # Bare addresses become links in many viewers.
    return re.sub(r"(?i)\bwww\.", "www&#46;", text.replace(":/", "&#58;/").replace("@", "&#64;"))
