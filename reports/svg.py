"""Pieces of hand-drawn SVG: elements, scales, rows with names; knows nothing of policies.

Sizes are CSS pixels. Colours are classes that report.css fills in, so that a drawing follows the
reader's light or dark mode. A drawing narrower than BESIDE puts names above their rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

BESIDE = 600  # from this width on there is room for names beside the rows
LETTER = 7.4  # width of a letter at the drawings' 13 px, on the wide side


def element(name: str, content: str = "", **attributes: str | float) -> str:
    """One element; `kind` becomes its class; content is markup, attributes are escaped."""
    if kind := attributes.pop("kind", ""):
        attributes["class"] = kind
    written = "".join(
        f' {key.replace("_", "-")}="{escape(_number(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text, escaped; `y` is its middle."""
    return element("text", escape(words), x=x, y=y, dy="0.35em", kind=kind, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, kind=kind)


def tip(words: str) -> str:
    """What a pointer resting on the surrounding element shows."""
    return element("title", escape(words))


def picture(name: str, width: float, height: float, title: str, about: str, marks: str) -> str:
    """A whole drawing; `name` must be its own on the page."""
    ids = f"{name}-{width:.0f}"
    spoken = element("title", escape(title), id=f"{ids}-title")
    spoken += element("desc", escape(about), id=f"{ids}-about")
    return element(
        "svg",
        spoken + marks,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_labelledby=f"{ids}-title {ids}-about",
        kind="wide" if width >= BESIDE else "narrow",
    )


def fitted(words: str, room: float) -> str:
    """The words, cut with an ellipsis where they would not fit."""
    letters = max(2, int(room / LETTER))
    return words if len(words) <= letters else words[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], roughly `about` of them."""
    assert math.isfinite(low) and math.isfinite(high) and low < high
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [number * size for number in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight map of values to pixels; what lies outside is drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        assert self.low < self.high, "a scale needs an extent"

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Rows:
    """Horizontal rows, each with a name: beside it where there is room, above it otherwise."""

    names: list[str]
    width: float
    right: float = 70  # kept free for the values at the row's end
    top: float = 6

    @property
    def beside(self) -> bool:
        return self.width >= BESIDE

    @property
    def left(self) -> float:
        """Where the plot begins."""
        longest = max(len(name) for name in self.names) * LETTER
        return min(240.0, longest + 18) if self.beside else 0

    @property
    def end(self) -> float:
        return self.width - self.right

    @property
    def pitch(self) -> float:
        return 30 if self.beside else 46

    @property
    def bottom(self) -> float:
        return self.top + self.pitch * len(self.names)

    def middle(self, row: int) -> float:
        """The height of a row's marks."""
        return self.top + self.pitch * row + (15 if self.beside else 29)

    def name(self, row: int, kind: str) -> str:
        """A row's name."""
        y = self.middle(row) - (0 if self.beside else 19)
        room = self.left - 12 if self.beside else self.width
        words = fitted(self.names[row], room)
        return element("g", tip(self.names[row]) + text(0, y, words, kind=f"name {kind}"))


def axis(scale: Scale, top: float, bottom: float, about: int, suffix: str = "") -> str:
    """Thin vertical lines at round values, which stand below."""
    marks = []
    values = steps(scale.low, scale.high, about)
    digits = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9)) if values[1:] else 1
    for value in values:
        marks.append(line(scale(value), top, scale(value), bottom, "grid"))
        words = f"{value + 0.0:.{digits}f}{suffix}"
        marks.append(text(scale(value), bottom + 13, words, "tick", "middle"))
    return "".join(marks)


def dot(x: float, y: float, shape: int, kind: str, about: str, radius: float = 5) -> str:
    """A mark in one of six shapes, told apart without colour."""
    if shape % 6 == 0:
        return element("circle", tip(about), cx=x, cy=y, r=radius, kind=kind)
    corners = {1: (4, 45), 2: (3, -90), 3: (4, 0), 4: (3, 90), 5: (5, -90)}
    count, turn = corners[shape % 6]
    reach = radius * (1.25 if count == 4 else 1.4 if count == 3 else 1.2)
    angles = [math.radians(turn + 360 * i / count) for i in range(count)]
    points = " ".join(
        f"{x + reach * math.cos(a):.1f},{y + reach * math.sin(a):.1f}" for a in angles
    )
    return element("polygon", tip(about), points=points, kind=kind)


def _number(value: str | float) -> str:
    """An attribute's value; pixels with one decimal."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
