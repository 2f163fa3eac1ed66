"""The report's drawings, each for one width; knows figures and their roles, no page."""

from __future__ import annotations

from typing import Any

from reports.svg import Rows, Scale, axis, dot, element, line, picture, text, tip
from reports.words import Role, Summary, plain, roles, signed, speed, speed_spread, spread

SHAPES: dict[Role, int] = {"learned": 0, "static": 3, "rule": 0, "baseline": 1}
PARTS = {"draft": "draft", "verify": "verify", "decide": "policy", "commit": "commit"}
REST = {"rest": "outside cycles"}
AXIS = 28  # pixels under a plot for its axis


def speeds(summary: Summary, learned: list[str], width: int) -> str:
    """Tokens per second with intervals; the best static plan's speed is a line through all rows."""
    kinds, policies = roles(summary, learned), summary["policies"]
    rows = Rows(list(kinds), width)
    highest = max(policies[name]["tokens_per_second"]["high"] for name in kinds)
    scale = Scale(0, highest * 1.02, rows.left, rows.end)
    marks = [axis(scale, rows.top, rows.bottom, 6 if rows.beside else 4)]
    if summary["static"] in kinds:
        x = scale(policies[summary["static"]]["tokens_per_second"]["value"])
        marks.append(line(x, rows.top, x, rows.bottom, "reference"))
    for i, (name, kind) in enumerate(kinds.items()):
        rate = policies[name]["tokens_per_second"]
        words = f"{name}: {speed(rate['value'])} tokens/s, {speed_spread(rate)}"
        marks.append(rows.name(i, kind))
        marks.append(_whisker(rate, scale, rows.middle(i), kind, words))
        marks.append(text(width, rows.middle(i), speed(rate["value"]), f"value {kind}", "end"))
    about = "One row per policy, fastest first; the numbers are in the table below."
    height = rows.bottom + AXIS
    return picture("speeds", width, height, "Tokens per second by policy", about, "".join(marks))


def differences(summary: Summary, learned: list[str], width: int) -> str:
    """Differences to the best static plan; rows far outside the others' range end in an arrow."""
    kinds = roles(summary, learned)
    kinds = {name: kind for name, kind in kinds.items() if name != summary["static"]}
    ratios = {name: summary["policies"][name]["ratio_to_static"] for name in kinds}
    rows = Rows(list(kinds), width)
    scale = _zoomed(ratios, kinds, rows)
    marks = [axis(scale, rows.top, rows.bottom, 8 if rows.beside else 5, " %")]
    marks.append(line(scale(0), rows.top, scale(0), rows.bottom, "reference"))
    for i, (name, kind) in enumerate(kinds.items()):
        y, ratio = rows.middle(i), ratios[name]
        inside = {key: 100 * (value - 1) for key, value in ratio.items()}
        marks.append(rows.name(i, kind))
        words = f"{name}: {signed(ratio['value'])}, 95 % interval {spread(ratio)}"
        if scale.low <= inside["value"] <= scale.high:
            marks.append(_whisker(inside, scale, y, kind, words))
        else:
            marks.append(_arrow(inside["value"] < 0, scale, y, kind, words))
        marks.append(text(width, y, signed(ratio["value"]), f"value {kind}", "end"))
    title = "Speed against the best static plan"
    about = "Differences in percent with 95 % intervals; an interval clear of 0 is a difference."
    return picture("differences", width, rows.bottom + AXIS, title, about, "".join(marks))


def _whisker(interval: dict[str, float], scale: Scale, y: float, kind: Role, about: str) -> str:
    """An interval as a bar with its value as a dot."""
    low, high = scale(interval["low"]), scale(interval["high"])
    marks = line(low, y, high, y, f"whisker {kind}")
    for end in (low, high):
        marks += line(end, y - 4, end, y + 4, f"whisker {kind}")
    shape = SHAPES[kind]
    return element("g", marks + dot(scale(interval["value"]), y, shape, f"dot {kind}", about))


def _arrow(leftwards: bool, scale: Scale, y: float, kind: str, about: str) -> str:
    """A row that lies outside the plot."""
    x, way = (scale.start, 1) if leftwards else (scale.end, -1)
    points = f"{x:.1f},{y:.1f} {x + 9 * way:.1f},{y - 5:.1f} {x + 9 * way:.1f},{y + 5:.1f}"
    return element("polygon", tip(about), points=points, kind=f"dot {kind}")


def _zoomed(ratios: dict[str, Any], kinds: dict[str, Role], rows: Rows) -> Scale:
    """A range that shows learned policies and the rules near them; plain decoding may fall out."""
    near = [
        r for name, r in ratios.items() if kinds[name] == "learned" or abs(r["value"] - 1) < 0.15
    ]
    ends = [100 * (r[key] - 1) for r in near or ratios.values() for key in ("low", "high")]
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.06 * (high - low) or 1.0
    return Scale(low - margin, high + margin, rows.left + 4, rows.end - 4)


def times(summary: Summary, learned: list[str], width: int) -> str:
    """Milliseconds per token, stacked by what they were spent on."""
    kinds, policies = roles(summary, learned), summary["policies"]
    rows = Rows(list(kinds), width)
    spent = {name: policies[name]["ms_per_token"] for name in kinds}
    scale = Scale(0, max(sum(parts.values()) for parts in spent.values()), rows.left, rows.end)
    marks = [axis(scale, rows.top, rows.bottom, 6 if rows.beside else 4)]
    for i, (name, kind) in enumerate(kinds.items()):
        shown = {part: spent[name][part] for part in time_parts(summary)}
        marks.append(rows.name(i, kind))
        marks.append(stack(name, shown, scale, rows.middle(i), "part", " ms"))
        total = plain(sum(spent[name].values()))
        marks.append(text(width, rows.middle(i), total, f"value {kind}", "end"))
    about = "One bar per policy: milliseconds per token for draft, verify, policy and commit."
    height = rows.bottom + AXIS
    return picture("times", width, height, "Where the time goes", about, "".join(marks))


def time_parts(summary: Summary) -> dict[str, str]:
    """The parts of a token's time and their names; what was timed outside cycles only if any."""
    spent = [figures["ms_per_token"] for figures in summary["policies"].values()]
    outside = any(parts["rest"] > 0.005 * sum(parts.values()) for parts in spent)
    return PARTS | REST if outside else PARTS


def stack(
    name: str, parts: dict[str, float], scale: Scale, y: float, kind: str, unit: str
) -> str:  # fmt: skip
    """Segments side by side, with their figure where it fits."""
    marks, begun, digits = [], 0.0, 2 if unit == " ms" else 0
    for number, (part, value) in enumerate(parts.items()):
        x, end = scale(begun), scale(begun + value)
        about = f"{name}: {PARTS.get(part, part)} {value:.{digits}f}{unit}"
        box = {"x": x, "y": y - 10, "width": max(0.0, end - x), "height": 20.0}
        look = f"{kind} {kind}-{part if kind == 'part' else shade(number, len(parts))}"
        marks.append(element("rect", tip(about), kind=look, **box))
        if end - x > 40:
            words = f"{value:.{digits}f}{'' if unit == ' ms' else unit}"
            marks.append(text((x + end) / 2, y, words, f"on {look}", "middle"))
        begun += value
    return "".join(marks)


def shade(number: int, count: int) -> int:
    """One of nine shades, light to dark, spread over `count` of them."""
    return round(8 * number / (count - 1)) if count > 1 else 4
