"""What drafting and verifying cost, as staircases: given, or learned from the clock.

Sizes count the whole batch: sequences x nodes in a forward. Knows no policies and no models.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policies.rules.calibration import rows


@dataclass(frozen=True)
class Staircase:
    """Pairs (size, seconds): a forward costs as much as the next size that is listed."""

    steps: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        assert self.steps, "a staircase needs a step: [[size, seconds], ...]"
        assert all(len(step) == 2 for step in self.steps), "steps are pairs [size, seconds]"
        sizes, seconds = (list(column) for column in zip(*self.steps, strict=True))
        assert sizes[0] > 0 and sorted(set(sizes)) == sizes, "sizes are positive and rise"
        assert all(0 <= s < math.inf for s in seconds), "seconds are finite, at least 0"
        object.__setattr__(self, "_table", (sizes, seconds))

    def __call__(self, size: int) -> float:
        """Seconds; beyond the last step in proportion to the size."""
        sizes, seconds = self._table  # type: ignore[attr-defined]
        place = bisect_left(sizes, size)
        return seconds[place] if place < len(sizes) else seconds[-1] * size / sizes[-1]


SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096)
TRIES = 3  # the first measurements of a size keep the least: they hold the worst outliers
WEIGHT = 0.1  # of a later one


class Averages:
    """A staircase of running averages.

    What was not measured `TRIES` times is taken to cost no more than what is smaller, so that it
    gets tried; and nothing costs more than what is larger.
    """

    def __init__(self) -> None:
        self.measured = [[0.0, 0.0] for _ in SIZES]  # times, seconds
        self.filled = [0.0 for _ in SIZES]

    def __call__(self, size: int) -> float:
        """Seconds; 0 where nothing of this size or smaller was measured."""
        return self.filled[min(bisect_left(SIZES, size), len(SIZES) - 1)]

    def learn(self, size: int, seconds: float) -> None:
        """One more measurement."""
        entry = self.measured[min(bisect_left(SIZES, size), len(SIZES) - 1)]
        times, mean = entry
        if times < TRIES:
            mean = min(mean, seconds) if times else seconds
        else:
            mean += WEIGHT * (min(seconds, 2 * mean) - mean)
        entry[:] = times + 1, mean
        self._fill()

    def _fill(self) -> None:
        below, known = 0.0, [mean if times >= TRIES else -1.0 for times, mean in self.measured]
        for i, mean in enumerate(known):
            if mean >= 0:
                below = min(m for m in known[i:] if m >= 0)
            self.filled[i] = below


@dataclass(frozen=True)
class Costs:
    """A device's cost table."""

    draft: Staircase  # one draft level, by nodes expanded
    verify: Staircase  # one target forward, by nodes

    def draft_seconds(self, width: int) -> float:
        """One draft level that expands this many nodes."""
        return self.draft(width)

    def verify_seconds(self, nodes: int) -> float:
        """Verifying this many nodes."""
        return self.verify(nodes)

    def learn(self, width: int, levels: int, nodes: int, draft: float, rest: float) -> float:
        """The table was given: nothing is learned, a cycle takes the table's seconds."""
        return levels * self.draft(width) + self.verify(nodes)

    def state(self) -> dict[str, Any]:
        """Nothing was learned."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
        assert not state, "these costs were given, not learned"

    @property
    def content(self) -> dict[str, Any]:
        """As JSON: what `costs_of` reads."""
        return {"draft": self.draft.steps, "verify": self.verify.steps}


class LearnedCosts:
    """The same questions, answered by running averages of the clock."""

    def __init__(self) -> None:
        self.draft, self.verify = Averages(), Averages()

    def draft_seconds(self, width: int) -> float:
        """One draft level that expands this many nodes."""
        return self.draft(width)

    def verify_seconds(self, nodes: int) -> float:
        """Verifying this many nodes, and all that a cycle does besides drafting."""
        return self.verify(nodes)

    def learn(self, width: int, levels: int, nodes: int, draft: float, rest: float) -> float:
        """One cycle: seconds of all its draft levels and of all else; their sum."""
        if levels:
            self.draft.learn(width, draft / levels)
        self.verify.learn(nodes, rest)
        return draft + rest

    def state(self) -> dict[str, Any]:
        """Both tables."""
        return {"draft": self.draft.measured, "verify": self.verify.measured}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, averages in (("draft", self.draft), ("verify", self.verify)):
            averages.measured = rows(state[name], len(SIZES), 2)
            averages._fill()


def costs_of(given: Costs | dict[str, Any]) -> Costs:
    """The costs themselves, or those of {"draft": [[width, seconds], ...], "verify": [...]}."""
    if isinstance(given, Costs):
        return given
    if not isinstance(given, dict) or set(given) != {"draft", "verify"}:
        raise ValueError("costs are {'draft': [[width, seconds], ...], 'verify': [[nodes, ...]]}")
    return Costs(Staircase(given["draft"]), Staircase(given["verify"]))
