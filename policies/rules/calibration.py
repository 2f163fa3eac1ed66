"""Online calibration: draft probabilities to acceptance, by a small logistic model per group.

Knows neither trees nor policies; what a group is (a depth, or everything) the caller says.
Plain Python: a cycle brings a few labels, for which numpy takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

LEAST = 0.05  # p(1 - p) is taken to be at least this: bounds a single step


def log_odds(score: float) -> float:
    """log(q / (1 - q)) of a log probability, the latter within -8 and almost 0."""
    score = min(max(score, -8.0), -1e-4)
    return score - math.log(-math.expm1(score))


class Calibration:
    """P(accepted) = sigmoid(a + b log_odds(q)) with its own a, b per group.

    It begins with a = 0, b = 1, the draft as it is, and takes one Newton step per batch of labels
    in each group that has some; `memory` is the weight that the group's older labels keep.
    """

    def __init__(self, groups: int, memory: float = 0.995, prior: float = 4.0) -> None:
        assert groups >= 1 and 0 < memory <= 1 and prior > 0, "memory is within 0 and 1"
        self.memory, self.prior = memory, prior
        self.weights = [[0.0, 1.0] for _ in range(groups)]
        self.curvature = [[prior, 0.0, prior] for _ in range(groups)]  # of aa, ab, bb

    def __call__(self, score: float, group: int) -> float:
        """The chance of acceptance; 0 where there is no node."""
        if score == -math.inf:
            return 0.0
        a, b = self.weights[min(group, len(self.weights) - 1)]
        return 1 / (1 + math.exp(-min(max(a + b * log_odds(score), -30.0), 30.0)))

    def learn(self, labels: Iterable[tuple[float, int, bool]]) -> None:
        """One step towards these: score, group, whether it was accepted."""
        sums: dict[int, list[float]] = {}
        for score, group, accepted in labels:
            x, chance = log_odds(score), self(score, group)
            miss, bend = accepted - chance, max(chance * (1 - chance), LEAST)
            total = sums.setdefault(min(group, len(self.weights) - 1), [0.0] * 5)
            for i, part in enumerate((miss, miss * x, bend, bend * x, bend * x * x)):
                total[i] += part
        for group, total in sums.items():
            self._step(group, total)

    def _step(self, group: int, total: list[float]) -> None:
        curvature, weights = self.curvature[group], self.weights[group]
        for i, base in enumerate((self.prior, 0.0, self.prior)):
            curvature[i] = base + self.memory * (curvature[i] - base) + total[2 + i]
        aa, ab, bb = curvature
        scale = 1 / (aa * bb - ab * ab)
        weights[0] += (bb * total[0] - ab * total[1]) * scale
        weights[1] += (aa * total[1] - ab * total[0]) * scale

    def state(self) -> dict[str, Any]:
        """What was learned."""
        return {"weights": self.weights, "curvature": self.curvature}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.weights = rows(state["weights"], len(self.weights), 2)
        self.curvature = rows(state["curvature"], len(self.curvature), 3)


def rows(table: Any, count: int, width: int) -> list[list[float]]:
    """A table of floats as it was written; ValueError where it is of another size."""
    made = [[float(x) for x in row] for row in table]
    if len(made) != count or any(len(row) != width for row in made):
        raise ValueError(f"its state is no table of {count} x {width}")
    return made
