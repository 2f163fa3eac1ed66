"""What a policy chose by what it saw: shares of plans per range of a feature, drawn as bars."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from reports.charts import stack
from reports.svg import Rows, Scale, picture, text

MOST = 9  # plans told apart; what is chosen less often is one more of them
Shares = list[tuple[str, dict[str, float]]]


def decision(entry: dict[str, Any], slug: str, width: int) -> str:
    """Shares of the plans chosen, one row per range of a feature."""
    shares = decision_shares(entry)
    rows = Rows([name for name, _ in shares], width, right=0)
    scale = Scale(0, 100, rows.left, rows.end)
    marks = []
    for i, (name, row) in enumerate(shares):
        marks.append(rows.name(i, ""))
        if any(row.values()):
            parts = {plan: 100 * share for plan, share in row.items()}
            marks.append(stack(name, parts, scale, rows.middle(i), "shade", " %"))
        else:
            marks.append(text(rows.left, rows.middle(i), "no decisions", "tick"))
    title = f"Chosen by {entry['feature']}"
    about = "One bar per range of the feature: how often each option was chosen."
    return picture(slug, width, rows.bottom + 4, title, about, "".join(marks))


def decision_shares(entry: dict[str, Any]) -> Shares:
    """Per range of the feature the plans' shares; they sum to 1, or to 0 where nothing was seen."""
    plans = _merged(entry["shares"])
    names = bins(entry["bins"], max(len(shares) for shares in plans.values()))
    made: Shares = []
    for i, name in enumerate(names):
        column = {plan: _share(shares, i) for plan, shares in plans.items()}
        whole = sum(column.values()) or 1.0
        made.append((name, {plan: value / whole for plan, value in column.items()}))
    return made


def bins(edges: list[Any], count: int) -> list[str]:
    """Names of `count` ranges: between the edges, with open ends, or one per edge."""
    words = [f"{edge:g}" if isinstance(edge, int | float) else str(edge) for edge in edges]
    inner = [f"{low} to {high}" for low, high in pairwise(words)]
    if count == len(words) - 1:
        return inner
    if count == len(words) + 1 and words:
        return [f"below {words[0]}", *inner, f"{words[-1]} and more"]
    return words[:count] + [f"bin {i + 1}" for i in range(len(words), count)]


def _merged(shares: dict[str, list[Any]]) -> dict[str, list[float]]:
    """All plans in their order, the rarest ones as one where there are more than MOST."""
    size = max(len(own) for own in shares.values())
    full = {plan: [_share(own, i) for i in range(size)] for plan, own in shares.items()}
    if len(full) <= MOST:
        return full
    kept = sorted(full, key=lambda plan: -sum(full[plan]))[: MOST - 1]
    rare = [own for plan, own in full.items() if plan not in kept]
    others = [sum(column) for column in zip(*rare, strict=True)]
    some = {plan: own for plan, own in full.items() if plan in kept}
    return some | {f"{len(rare)} other plans": others}


def _share(shares: list[Any], place: int) -> float:
    """A range's share; 0 where there is none."""
    value = shares[place] if place < len(shares) else None
    return float(value) if value is not None and math.isfinite(value) else 0.0
