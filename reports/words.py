"""Figures in words, and the sentence on top; knows the summary only, nothing of HTML or SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Role = Literal["learned", "static", "baseline", "rule"]
Summary = dict[str, Any]
Interval = dict[str, float]


def roles(summary: Summary, learned: list[str]) -> dict[str, Role]:
    """What each policy is compared as, the fastest first."""
    return {name: _role(name, summary, learned) for name in ranking(summary)}


def _role(name: str, summary: Summary, learned: list[str]) -> Role:
    if name in learned:
        return "learned"
    if name == summary["static"]:
        return "static"
    return "baseline" if name == summary["baseline"] else "rule"


def ranking(summary: Summary) -> list[str]:
    """Names of the policies, the fastest first."""
    policies = summary["policies"]
    return sorted(policies, key=lambda name: -policies[name]["tokens_per_second"]["value"])


def percent(value: float | None, digits: int = 1) -> str:
    """A share; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def signed(ratio: float, digits: int = 1) -> str:
    """How much a ratio is above or below 1, with its sign; never a signed zero."""
    rounded = round(100 * (ratio - 1), digits) + 0.0
    return f"{rounded:+.{digits}f} %" if rounded else f"{0:.{digits}f} %"


def plain(value: float | None, digits: int = 2) -> str:
    """A number; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def speed(value: float) -> str:
    """Tokens per second with about four digits."""
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 2}f}"


def spread(interval: Interval) -> str:
    """An interval of ratios as percentages."""
    return f"{signed(interval['low']).removesuffix(' %')} to {signed(interval['high'])}"


def speed_spread(interval: Interval) -> str:
    """An interval of speeds."""
    return f"{speed(interval['low'])} to {speed(interval['high'])}"


HINDSIGHT = {
    "one plan for all": "pooled",
    "the best plan of each domain": "by_domain",
    "of each prompt": "by_prompt",
    "the oracle, at every position": "oracle",
}


def hindsight(oracle: Mapping[str, Any]) -> str:
    """What the best static plans and the oracle would have brought."""
    shown = [
        f"{name} {oracle[f'lead_{key}'] * oracle['static']:.1f} "
        f"({100 * (oracle[f'lead_{key}'] - 1):+.1f} %)"
        for name, key in HINDSIGHT.items()
    ]
    said = "In hindsight, by the prices, in tokens/s (and over the static plan)"
    return f"{said}: {', '.join(shown)}."


def beats(summary: Summary, name: str) -> bool:
    """Whether the whole interval lies above the best static plan; needs more than one prompt."""
    ratio = summary["policies"][name]["ratio_to_static"]
    return summary["prompts"] > 1 and ratio is not None and ratio["low"] > 1


def headline(summary: Summary, learned: list[str]) -> tuple[str, str]:
    """A title and the sentences under it: who is the fastest, and is that more than chance."""
    order = ranking(summary)
    known = [name for name in order if name in learned]
    if summary["static"] not in order or not known:
        return f"{order[0]} is the fastest policy", _fastest(summary, order[0])
    winners = [name for name in known if beats(summary, name)]
    best = winners[0] if winners else known[0]
    if winners:
        gain = signed(summary["policies"][best]["ratio_to_static"]["value"]).lstrip("+")
        title = f"{best} is {gain} faster than the best static plan"
    elif len(known) == 1:
        title = f"{best} does not beat the best static plan"
    else:
        title = "No learned policy beats the best static plan"
    return title, " ".join([_fastest(summary, order[0]), _against_static(summary, best)])


def _fastest(summary: Summary, name: str) -> str:
    """The fastest policy's speed."""
    figures = summary["policies"][name]
    ratio = figures["ratio_to_baseline"]
    times = ""
    if ratio and name != summary["baseline"]:
        times = f", {ratio['value']:.2f}x plain decoding"
    value = speed(figures["tokens_per_second"]["value"])
    return f"The fastest policy is {name} with {value} tokens/s{times}."


def _against_static(summary: Summary, name: str) -> str:
    """One learned policy against the best static plan, with what its interval says."""
    ratio = summary["policies"][name]["ratio_to_static"]
    gap = f"{name} against the best static plan ({summary['static']}): {signed(ratio['value'])}"
    if summary["prompts"] < 2:
        return f"{gap}; one prompt gives no interval."
    inside = ratio["low"] <= 1 <= ratio["high"]
    verdict = "includes 0, so they cannot be told apart" if inside else "excludes 0"
    return f"{gap}, 95 % interval {spread(ratio)}, which {verdict}."
