"""The report's HTML tables: the heat table by domain and the numbers behind each drawing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from reports.svg import element
from reports.words import Role, Summary, percent, plain, signed, speed, speed_spread, spread

Kinds = dict[str, Role]


def grid(caption: str, header: Iterable[str], lines: Iterable[list[str]], kinds: Kinds) -> str:
    """A table of words; each line's first cell is its heading, coloured by its role."""
    body = []
    for name, *cells in lines:
        heading = element("th", escape(name), scope="row", kind=kinds.get(name, ""))
        body.append(element("tr", heading + "".join(element("td", escape(c)) for c in cells)))
    return scrolled(caption, header, "".join(body))


def scrolled(caption: str, header: Iterable[str], body: str, kind: str = "") -> str:
    """A table that scrolls sideways where it is wider than the page."""
    heads = "".join(element("th", escape(name), scope="col") for name in header)
    parts = element("caption", escape(caption)) + element("thead", element("tr", heads))
    inner = element("table", parts + element("tbody", body), kind=kind)
    return element(
        "div", inner, kind="scroll", tabindex="0", role="region", aria_label=caption
    )  # fmt: skip


def folded(summary: str, content: str) -> str:
    """Content behind a line that opens it."""
    return element("details", element("summary", escape(summary)) + content)


def heat(summary: Summary, kinds: Kinds) -> str:
    """Ratios to the best static plan by domain; the tint is the size, bold is clear of 0."""
    names = [name for name in kinds if name != summary["static"]]
    counts: dict[str, int] = summary["domains"]
    ratios = {n: [_by_domain(summary, n)[d]["ratio_to_static"] for d in counts] for n in names}
    near = [abs(r["value"] - 1) for n in names if kinds[n] != "baseline" for r in ratios[n]]
    largest = max([0.02, *near])
    lines = []
    for name in names:
        pairs = zip(ratios[name], counts.values(), strict=True)
        cells = "".join(_tinted(ratio, largest, prompts) for ratio, prompts in pairs)
        heading = element("th", escape(name), scope="row", kind=kinds[name])
        lines.append(element("tr", heading + cells))
    caption = "Speed against the best static plan, by domain"
    return scrolled(caption, ["policy", *counts], "".join(lines), "heat")


def _by_domain(summary: Summary, name: str) -> dict[str, dict[str, Any]]:
    """A policy's figures by domain."""
    return summary["policies"][name]["domains"]


def _tinted(ratio: dict[str, float], largest: float, prompts: int) -> str:
    """One cell of the heat table."""
    gain = ratio["value"] - 1
    strength = f"--strength: {0.55 * min(1.0, abs(gain) / largest):.2f}"
    clear = prompts > 1 and not ratio["low"] <= 1 <= ratio["high"]
    kind = f"{'up' if gain > 0 else 'down'}{' clear' if clear else ''}"
    words = escape(signed(ratio["value"])) + element("small", escape(spread(ratio)))
    return element("td", words, kind=kind, style=strength)


def time_table(summary: Summary, kinds: Kinds, parts: dict[str, str]) -> str:
    """Milliseconds per token by part."""
    lines = []
    for name in kinds:
        figures = summary["policies"][name]
        cells = [plain(figures["ms_per_token"][part], 3) for part in parts]
        lines.append([name, *cells, percent(figures["policy_share"])])
    header = ["policy", *parts.values(), "policy share of cycles"]
    return grid("Milliseconds per token", header, lines, kinds)


def domain_table(summary: Summary, kinds: Kinds) -> str:
    """Every policy's figures in every domain."""
    lines = []
    for name in kinds:
        for domain, figures in _by_domain(summary, name).items():
            lines.append([name, domain, *_speed_cells(figures), *_cycle_cells(figures)])
    header = ["policy", "domain", *SPEEDS, *CYCLES]
    return grid("By policy and domain", header, lines, kinds)


def policy_table(summary: Summary, kinds: Kinds, oracle: dict[str, Any] | None) -> str:
    """Every policy's figures."""
    lines = []
    for name in kinds:
        figures = summary["policies"][name]
        more = [
            percent(figures["policy_share"], 2),
            percent(figures["probability_of_improvement"], 0),
        ]
        more += [percent(oracle["shares"].get(name), 0)] if oracle else []
        totals = [
            f"{figures['new_tokens']:,}",
            f"{figures['seconds']:.1f}",
            f"{figures['cycles']:,}",
        ]
        lines.append([name, *_speed_cells(figures), *_cycle_cells(figures), *more, *totals])
    header = ["policy", *SPEEDS, *CYCLES, "policy time", "prompts faster than static"]
    header += ["oracle gap closed"] if oracle else []
    return grid("By policy", [*header, "tokens", "seconds", "cycles"], lines, kinds)


SPEEDS = ("tokens/s", "95 % interval", "x AR", "95 % interval", "vs static", "95 % interval")
CYCLES = ("tokens/cycle", "drafted/cycle", "accepted/cycle", "accepted/drafted")


def _speed_cells(figures: dict[str, Any]) -> list[str]:
    """Speed and both ratios, each with its interval."""
    rate, times, gap = (
        figures[name] for name in ("tokens_per_second", "ratio_to_baseline", "ratio_to_static")
    )
    cells = [speed(rate["value"]), speed_spread(rate)]
    cells += (
        [plain(times["value"]), f"{times['low']:.2f} to {times['high']:.2f}"]
        if times
        else ["-"] * 2
    )
    return cells + ([signed(gap["value"]), spread(gap)] if gap else ["-"] * 2)


def _cycle_cells(figures: dict[str, Any]) -> list[str]:
    """What a cycle drafts and keeps."""
    names = ("tokens_per_cycle", "drafted_per_cycle", "accepted_per_cycle")
    return [*(plain(figures[name]) for name in names), percent(figures["acceptance"])]
