"""What the report's sections are put together from: drawings, legends, titles; no values."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from reports.charts import SHAPES
from reports.svg import dot, element
from reports.words import Role

WIDE, NARROW = 890, 388  # widths the drawings are made for; report.css shows one of them
NAMES: dict[Role, str] = {
    "learned": "learned policy",
    "static": "best static plan",
    "rule": "other rule",
    "baseline": "plain decoding",
}


def section(title: str, content: str, needed: str = "always") -> str:
    """A titled section, or nothing where it would be empty."""
    return element("section", element("h2", escape(title)) + content) if needed else ""


def prose(words: str, kind: str = "", name: str = "p") -> str:
    """A paragraph; no line begins with a percent sign."""
    return element(name, escape(words).replace(" %", "\N{NO-BREAK SPACE}%"), kind=kind)


def figure(draw: Callable[[int], str], about: str = "") -> str:
    """A drawing for wide and for narrow pages, with its caption."""
    caption = prose(about, name="figcaption") if about else ""
    return element("figure", draw(WIDE) + draw(NARROW) + caption)


def key(kinds: dict[str, Role]) -> str:
    """What the marks of the roles mean, for those that occur."""
    seen = [role for role in NAMES if role in kinds.values()]
    return legend({NAMES[role]: swatch(SHAPES[role], role) for role in seen})


def legend(marks: dict[str, str]) -> str:
    """A line of small drawings, each with its meaning."""
    items = (element("li", mark + element("span", escape(name))) for name, mark in marks.items())
    return element("ul", "".join(items), kind="key")


def swatch(shape: int, kind: str = "plain") -> str:
    """A mark for a legend."""
    mark = dot(8, 8, shape, f"dot {kind}", "")
    return element("svg", mark, viewBox="0 0 16 16", aria_hidden="true")


def block(kind: str) -> str:
    """A coloured square for a legend."""
    mark = element("rect", x=1, y=1, width=14, height=14, rx=2, kind=kind)
    return element("svg", mark, viewBox="0 0 16 16", aria_hidden="true")


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
