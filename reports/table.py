"""The summary as a table: in the terminal and as Markdown; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from reports.words import (
    HINDSIGHT,
    Summary,
    hindsight,
    percent,
    plain,
    ranking,
    signed,
    speed,
    spread,
)

HEADER = (  # in the lines that a terminal shows
    "policy",
    "tokens/\ns",
    "95 %\ninterval",
    "x AR",
    "vs best static, %",
    "tokens/\ncycle",
    "policy\ntime, %",
)
FOLDED = {"policy": 12, "95 %\ninterval": 8, "vs best static, %": 15}  # on a narrow terminal


def table(summary: Summary, oracle: Mapping[str, Any] | None = None) -> Table:
    """One line per policy, the fastest first; and what hindsight would have brought."""
    drawn = Table(box=SIMPLE_HEAD, padding=0, caption_justify="left")
    drawn.caption = hindsight(oracle) if oracle else None
    for name in _header(oracle):
        side: JustifyMethod = "left" if name == "policy" else "right"
        least = FOLDED.get(name)
        drawn.add_column(
            name, justify=side, no_wrap=least is None, min_width=least, overflow="fold"
        )
    for name in ranking(summary):
        style = "bold" if name == summary["static"] else ""
        drawn.add_row(*(Text(cell) for cell in _cells(summary, name, oracle)), style=style)
    return drawn


def markdown(summary: Summary, oracle: Mapping[str, Any] | None = None) -> str:
    """The same as a Markdown table."""
    header = _header(oracle)
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += _hindsight(summary, oracle) if oracle else []
    lines += [_cells(summary, name, oracle) for name in ranking(summary)]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines) + "\n"


def _header(oracle: Mapping[str, Any] | None) -> list[str]:
    return [*HEADER, *(["oracle\ngap, %"] if oracle else [])]


def _cells(summary: Summary, name: str, oracle: Mapping[str, Any] | None) -> list[str]:
    """A policy's line."""
    figures = summary["policies"][name]
    rate, times = figures["tokens_per_second"], figures["ratio_to_baseline"]
    cells = [
        name,
        speed(rate["value"]),
        " to ".join(_short(rate[end]) for end in ("low", "high")),
        plain(times["value"] if times else None),
        _against(figures["ratio_to_static"], name == summary["static"]),
        plain(figures["tokens_per_cycle"]),
        percent(figures["policy_share"]).removesuffix(" %"),
    ]
    return [*cells, percent(oracle["shares"].get(name), 0).removesuffix(" %")] if oracle else cells


def _hindsight(summary: Summary, oracle: Mapping[str, Any]) -> list[list[str]]:
    """Lines of the oracle and of static plans chosen afterwards, by prices."""
    baseline = summary["policies"].get(summary["baseline"])
    lines, top = list[list[str]](), oracle["lead_oracle"] - 1
    for name, key in reversed(HINDSIGHT.items()):
        lead = oracle[f"lead_{key}"]
        rate, share = lead * oracle["static"], percent((lead - 1) / top, 0).removesuffix(" %")
        over = signed(lead).removesuffix(" %")
        whole = name.replace("of each prompt", "the best plan of each prompt")
        named = f"in hindsight: {whole}"
        times = rate / baseline["tokens_per_second"]["value"] if baseline else None
        lines.append([named, speed(rate), "-", plain(times), over, "-", "-", share])
    return lines


def _short(rate: float) -> str:
    """A speed with about three digits."""
    return plain(rate, 0 if rate >= 100 else 1 if rate >= 10 else 2)


def _against(ratio: dict[str, float] | None, itself: bool) -> str:
    """The difference to the best static plan with its interval."""
    if ratio is None or itself:
        return "-"
    return f"{signed(ratio['value'])} ({spread(ratio)})".replace(" %", "")


def _escaped(cell: str) -> str:
    """A cell that cannot end the cell, the line or the table's text."""
    cell = " ".join(cell.replace("/\n", "/").split()).replace("\\", "\\\\")
    for mark in "|<`*_":
        cell = cell.replace(mark, "\\" + mark)
    return cell
