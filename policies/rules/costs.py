"""What drafting and verifying cost, as staircases: given, or learned from the clock.

Sizes count the whole batch: sequences x nodes in a forward. Knows no policies and no models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.rules.calibration import rows
from spec_core.quick import compiled


@compiled
def seconds(steps, size):  # type: ignore[no-untyped-def]
    """What the next of steps [N, 2] (size, seconds) costs; beyond the last in proportion."""
    for step in range(len(steps)):
        if size <= steps[step, 0]:
            return steps[step, 1]
    return steps[-1, 1] * size / steps[-1, 0]


@dataclass(frozen=True)
class Staircase:
    """Pairs (size, seconds): a forward costs as much as the next size that is listed."""

    steps: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        assert self.steps, "a staircase needs a step: [[size, seconds], ...]"
        assert all(len(step) == 2 for step in self.steps), "steps are pairs [size, seconds]"
        sizes, costs = (list(column) for column in zip(*self.steps, strict=True))
        assert sizes[0] > 0 and sorted(set(sizes)) == sizes, "sizes are positive and rise"
        assert all(0 <= s < math.inf for s in costs), "seconds are finite, at least 0"

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """All steps [N, 2]."""
        return np.array(self.steps, np.float64)

    def __call__(self, size: int) -> float:
        """Seconds; beyond the last step in proportion to the size."""
        return seconds(self.table, size)


SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096)
TRIES = 3  # the first measurements of a size keep the least: they hold the worst outliers
WEIGHT = 0.1  # of a later one


@compiled
def _average(table, measured, size, cost):  # type: ignore[no-untyped-def]
    """One more measurement of a size."""
    place = 0
    while place < len(table) - 1 and size > table[place, 0]:
        place += 1
    cost *= min(1.0, table[place, 0] / size)  # beyond the last step
    times, mean = measured[place, 0], measured[place, 1]
    if times == 0:
        mean = cost
    elif times < TRIES:
        mean = min(mean, cost)
    else:
        mean += WEIGHT * (min(cost, 2 * mean) - mean)
    measured[place, 0], measured[place, 1] = times + 1, mean
    _fill(table, measured)


@compiled
def _fill(table, measured):  # type: ignore[no-untyped-def]
    """Of what was measured often enough: nothing costs more than what is larger."""
    above = math.inf
    for i in range(len(table) - 1, -1, -1):  # from the largest down, those known
        if measured[i, 0] >= TRIES:
            above = min(above, measured[i, 1])
            table[i, 1] = above
    below = 0.0
    for i in range(len(table)):
        if measured[i, 0] >= TRIES:
            below = table[i, 1]
        table[i, 1] = below


class Averages:
    """A staircase of running averages.

    What was not measured `TRIES` times is taken to cost no more than what is smaller, so that it
    gets tried; and nothing costs more than what is larger.
    """

    def __init__(self) -> None:
        self.measured = np.zeros((len(SIZES), 2))  # times, seconds
        self.table = np.array([(size, 0.0) for size in SIZES])
        _average(self.table.copy(), self.measured.copy(), 1, 0.0)  # compiled before a clock runs

    def __call__(self, size: int) -> float:
        """Seconds; 0 where nothing of this size or smaller was measured."""
        return seconds(self.table, size)

    def learn(self, size: int, cost: float) -> None:
        """One more measurement."""
        _average(self.table, self.measured, size, float(cost))

    def restore(self, measured: Any) -> None:
        """Go on from what was measured."""
        self.measured = np.array(rows(measured, len(SIZES), 2))
        _fill(self.table, self.measured)

    @property
    def steps(self) -> list[list[float]]:
        """The sizes that were measured."""
        return self.table[self.measured[:, 0] >= TRIES].tolist()


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

    @property
    def content(self) -> dict[str, Any]:
        """What was measured, as `costs_of` reads it."""
        return {"draft": self.draft.steps, "verify": self.verify.steps}

    def state(self) -> dict[str, Any]:
        """Both tables."""
        return {"draft": self.draft.measured.tolist(), "verify": self.verify.measured.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, averages in (("draft", self.draft), ("verify", self.verify)):
            averages.restore(state[name])


def costs_of(given: Costs | dict[str, Any]) -> Costs:
    """The costs themselves, or those of {"draft": [[width, seconds], ...], "verify": [...]}."""
    if isinstance(given, Costs):
        return given
    if not isinstance(given, dict) or set(given) != {"draft", "verify"}:
        raise ValueError("costs are {'draft': [[width, seconds], ...], 'verify': [[nodes, ...]]}")
    return Costs(Staircase(given["draft"]), Staircase(given["verify"]))
