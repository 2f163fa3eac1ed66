"""The least time that any sequence of plans needs for recorded texts, and the best static plans.

A cycle's tokens and seconds depend on where it begins and on its plan only, so the quickest way
from a position to the end is the cheapest plan there and the quickest way from where it leads:
one sweep over the positions, from the texts' ends to their beginnings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.trace import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Best:
    """The oracle on P texts."""

    seconds: Floats  # [P]
    tokens: NDArray  # [P]
    plans: NDArray  # [N] the best plan at every position, whether it is met or not

    @property
    def speed(self) -> float:
        """Tokens per second: sum over sum."""
        return float(self.tokens.sum() / self.seconds.sum())


@dataclass(frozen=True, eq=False)
class Static:
    """One plan for all, per domain, or per text: each the best in hindsight."""

    seconds: Floats  # [P, M] of every text under every plan
    tokens: NDArray  # [P]
    domains: NDArray  # [P]

    @property
    def pooled(self) -> int:
        """The best plan of all texts together."""
        return int(self.seconds.sum(0).argmin())

    @property
    def by_domain(self) -> dict[str, int]:
        """The best plan of each domain."""
        names = np.unique(self.domains).tolist()
        return {n: int(self.seconds[self.domains == n].sum(0).argmin()) for n in names}

    @property
    def by_text(self) -> NDArray:
        """[P] the best plan of each text."""
        return self.seconds.argmin(1)

    def speed(self, plans: NDArray | int | dict[str, int] | None = None) -> float:
        """Tokens per second under one plan, one per domain or one per text; None: pooled."""
        if plans is None:
            plans = self.pooled
        if isinstance(plans, dict):
            plans = np.array([plans[name] for name in self.domains.tolist()])
        each = np.broadcast_to(plans, len(self.tokens))
        return float(self.tokens.sum() / self.seconds[np.arange(len(each)), each].sum())


def gap_closed(speed: float, static: float, oracle: float) -> float:
    """The share of the way from the best static plan to the oracle; negative where slower."""
    if oracle <= static:
        raise ValueError(
            f"no gap: the oracle ({oracle:.4g}) is not above the static ({static:.4g})"
        )
    return (speed - static) / (oracle - static)


def _backwards(trace: Trace) -> Iterator[tuple[NDArray, NDArray]]:
    """Positions at the same distance from their texts' ends, the nearest first; and their texts."""
    longest_first = np.argsort(-trace.count, kind="stable")
    sorted_counts = trace.count[longest_first]
    for distance in range(1, int(sorted_counts[0]) + 1):
        texts = longest_first[: np.searchsorted(-sorted_counts, -distance, "right")]
        yield trace.first[texts + 1] - distance, texts


def oracle(trace: Trace, seconds: Floats) -> Best:
    """The best plans under these seconds [N, M] of every plan at every position."""
    value = np.zeros(len(trace) + len(trace.texts))  # each text's positions, then its end
    plans = np.zeros(len(trace), np.int64)
    for at, texts in _backwards(trace):
        ways = seconds[at] + value[at[:, None] + texts[:, None] + trace.committed[at]]
        plans[at] = ways.argmin(1)
        value[at + texts] = ways.min(1)
    starts = trace.first[:-1] + np.arange(len(trace.texts))
    return Best(value[starts], trace.count.astype(np.int64), plans)


def static(trace: Trace, seconds: Floats) -> Static:
    """Every text under every plan."""
    plans = np.arange(seconds.shape[1])
    value = np.zeros((len(trace) + len(trace.texts), len(plans)))
    for at, texts in _backwards(trace):
        onward = value[at[:, None] + texts[:, None] + trace.committed[at], plans]
        value[at + texts] = seconds[at] + onward
    starts = trace.first[:-1] + np.arange(len(trace.texts))
    return Static(value[starts], trace.count.astype(np.int64), trace.domains)
