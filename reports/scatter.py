"""Accepted length against tree size, one point per policy and domain; knows figures only."""

from __future__ import annotations

from typing import Any

from reports.svg import Scale, axis, dot, element, fitted, line, picture, steps, text
from reports.words import Summary, roles

LINE = 15  # pixels from one label to the next


def scatter(summary: Summary, learned: list[str], width: int) -> str:
    """A point per policy and domain; names stand to the right, tied to their policy's points."""
    kinds = roles(summary, learned)
    points = {name: _points(summary, name) for name in kinds}
    points = {name: own for name, own in points.items() if own}
    room = 190 if width >= 600 else 116
    height = max(300, LINE * len(points) + 40)
    every = [point for own in points.values() for point in own.values()]
    right = _around([x for x, _ in every], 34, width - room)
    up = _around([y for _, y in every], height, 24)
    marks = [axis(right, 24, height, 6 if width >= 600 else 4), _levels(up, width - room)]
    marks.append(text(width - room, height + 32, "nodes drafted per cycle", "tick", "end"))
    marks.append(text(0, 8, "tokens accepted per cycle", "tick"))
    anchors = {}
    for name, own in points.items():
        placed = {d: (right(x), up(y)) for d, (x, y) in own.items()}
        anchors[name] = max(placed.values())
        marks += [_point(summary, name, kinds[name], d, at) for d, at in placed.items()]
    marks += _labels(anchors, kinds, width - room, height, room)
    title = "Accepted length against tree size"
    about = "Tokens accepted over nodes drafted, per cycle, by policy and domain."
    return picture("scatter", width, height + 40, title, about, "".join(marks))


def _around(values: list[float], start: float, end: float) -> Scale:
    """A scale with some air around the values; it need not begin at 0."""
    low, high = min(values), max(values)
    air = 0.1 * (high - low) or 0.1 * high or 1.0
    return Scale(max(0.0, low - air), high + air, start, end)


def has_points(summary: Summary) -> bool:
    """Whether any policy drafted anything."""
    return any(_points(summary, name) for name in summary["policies"])


def _points(summary: Summary, name: str) -> dict[str, tuple[float, float]]:
    """By domain: nodes drafted and tokens accepted per cycle, where anything was drafted."""
    domains: dict[str, dict[str, Any]] = summary["policies"][name]["domains"]
    return {
        domain: (figures["drafted_per_cycle"], figures["accepted_per_cycle"])
        for domain, figures in domains.items()
        if figures["drafted_per_cycle"]
    }


def _levels(up: Scale, end: float) -> str:
    """Thin horizontal lines at round values."""
    marks = []
    for value in steps(up.low, up.high, 5):
        marks.append(line(34, up(value), end, up(value), "grid"))
        marks.append(text(26, up(value), f"{value:g}", "tick", "end"))
    return "".join(marks)


def _point(summary: Summary, name: str, kind: str, domain: str, at: tuple[float, float]) -> str:
    figures = summary["policies"][name]["domains"][domain]
    drafted, accepted = figures["drafted_per_cycle"], figures["accepted_per_cycle"]
    about = f"{name}, {domain}: {accepted:.2f} accepted of {drafted:.2f} drafted per cycle"
    return dot(*at, list(summary["domains"]).index(domain), f"dot {kind}", about)


def _labels(
    anchors: dict[str, tuple[float, float]], kinds: dict[str, Any], x: float, height: float,
    room: float,
) -> list[str]:  # fmt: skip
    """Names beside the plot in the order of their points' heights, none over another."""
    marks, y = [], float(-LINE)
    order = sorted(anchors, key=lambda name: anchors[name][1])
    for place, name in enumerate(order):
        latest = height - LINE * (len(order) - 1 - place)  # leaves room for those that follow
        y = min(max(y + LINE, anchors[name][1], 26), latest)
        px, py = anchors[name]
        bend = f"{px + 7:.1f},{py:.1f} {x:.1f},{y:.1f} {x + 8:.1f},{y:.1f}"
        marks.append(element("polyline", points=bend, kind=f"tie {kinds[name]}"))
        marks.append(text(x + 12, y, fitted(name, room - 14), f"name {kinds[name]}"))
    return marks
