"""Online calibration: draft probabilities to acceptance, by a small logistic model per group.

Knows neither trees nor policies; what a group is (a depth, or everything) the caller says.
Machine code where there is numba: a cycle brings a few labels, for which arrays take longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spec_core.odds import chance, log_odds
from spec_core.quick import compiled

LEAST = 0.05  # p(1 - p) is taken to be at least this: bounds a single step


@compiled
def _learn(lines, curvature, prior, memory, scores, groups, hits):  # type: ignore[no-untyped-def]
    """One Newton step in each group that has labels; how many levels something could be hit in."""
    sums, tried = np.zeros((len(lines), 5)), 0
    for b in range(len(scores)):
        deepest = reached = 0
        for n in range(scores.shape[1]):
            level, score = groups[b, n], scores[b, n]
            if level == 0 or score == -np.inf:
                continue
            deepest, reached = max(deepest, level), max(reached, level * hits[b, n])
            group = min(level, len(lines)) - 1
            x, hoped = log_odds(score), chance(lines[group, 0], lines[group, 1], score)
            miss, bend = hits[b, n] - hoped, max(hoped * (1 - hoped), LEAST)
            for k, part in enumerate((miss, miss * x, bend, bend * x, bend * x * x)):
                sums[group, k] += part
        tried += min(reached + 1, deepest)
    for group, total in enumerate(sums):
        if total[2] > 0:
            mine = curvature[group]
            for k in range(3):
                base = prior if k != 1 else 0.0
                mine[k] = base + memory * (mine[k] - base) + total[2 + k]
            scale = 1 / (mine[0] * mine[2] - mine[1] * mine[1])
            lines[group, 0] += (mine[2] * total[0] - mine[1] * total[1]) * scale
            lines[group, 1] += (mine[0] * total[1] - mine[1] * total[0]) * scale
    return tried


class Calibration:
    """P(accepted) = sigmoid(a + b log_odds(q)) with its own a, b per group.

    It begins with a = 0, b = 1, the draft as it is, and takes one Newton step per batch of labels
    in each group that has some; `memory` is the weight that the group's older labels keep.
    """

    def __init__(self, groups: int, memory: float = 0.995, prior: float = 4.0) -> None:
        assert groups >= 1 and 0 < memory <= 1 and prior > 0, "memory is within 0 and 1"
        self.memory, self.prior = memory, prior
        self.lines = np.tile([0.0, 1.0], (groups, 1))
        self.curvature = np.tile([prior, 0.0, prior], (groups, 1))  # of aa, ab, bb
        # the machine code is at hand before a clock runs
        self.learn(np.zeros((1, 1)), np.zeros((1, 1), np.int64), np.zeros((1, 1), np.bool_))

    def learn(self, scores: Any, groups: Any, hits: Any) -> int:
        """One step towards nodes' labels [B, N]: scores, groups from 1 on, who was accepted.

        Those of group 0, and those without a score, are none. Where groups are depths: how many
        levels were tried, up to the first without a hit.
        """
        return _learn(self.lines, self.curvature, self.prior, self.memory, scores, groups, hits)

    def state(self) -> dict[str, Any]:
        """What was learned."""
        return {"weights": self.lines.tolist(), "curvature": self.curvature.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.lines = np.array(rows(state["weights"], len(self.lines), 2))
        self.curvature = np.array(rows(state["curvature"], len(self.curvature), 3))


def rows(table: Any, count: int, width: int) -> list[list[float]]:
    """A table of floats as it was written; ValueError where it is of another size."""
    made = [[float(x) for x in row] for row in table]
    if len(made) != count or any(len(row) != width for row in made):
        raise ValueError(f"its state is no table of {count} x {width}")
    return made
