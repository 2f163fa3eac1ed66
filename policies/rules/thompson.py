"""Thompson sampling of the draft length; knows the draft's probabilities, no costs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from policies.rules.base import ChainRule, steps
from policies.rules.calibration import Calibration, rows

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.session import Outcome


class Thompson(ChainRule):
    """EESD's Beta-Thompson sampling (arXiv 2406.03853), in our reconstruction: it has no code.

    After each token theta ~ Beta(a, b) of the token's bucket, and drafting goes on with chance
    theta. Accepted tokens add to a, the first refused one to b. `edges` part the draft's
    probability of the newest token into buckets; none: one for all. `memory` is the weight that
    older counts keep per cycle. calibrated: theta is mixed with a learned chance of acceptance
    whose weight is strength / (strength + counts). Defaults: prior Beta(1, 1), five edges,
    memory 1, 16 tokens at most, not calibrated.
    """

    def __init__(
        self, depth: int = 16, edges: Sequence[float] = (0.3, 0.5, 0.7, 0.85, 0.95),
        prior: Sequence[float] = (1.0, 1.0), memory: float = 1.0, calibrated: bool = False,
        strength: float = 20.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(depth)
        assert all(0 < e < 1 for e in edges) and sorted(edges) == list(edges), "edges must rise"
        assert len(prior) == 2 and min(prior) > 0, "the prior is Beta(a, b)"
        assert 0 < memory <= 1 and strength > 0
        self.edges, self.prior = [math.log(edge) for edge in edges], prior
        self.memory, self.strength = memory, strength
        self.counts = [[0.0, 0.0] for _ in range(len(edges) + 1)]  # accepted, refused by bucket
        self.calibration = Calibration(1) if calibrated else None
        self.random = np.random.default_rng(seed)

    def stop(self, level: LevelView) -> Tensor:
        """One draw of theta, and one of going on, per sequence."""
        return torch.tensor([self.random.random() >= self._theta(q) for q in steps(level.pool)])

    def _theta(self, score: float) -> float:
        accepted, refused = self.counts[bisect_right(self.edges, score)]
        theta = self.random.beta(self.prior[0] + accepted, self.prior[1] + refused)
        if self.calibration is None:
            return theta
        weight = self.strength / (self.strength + accepted + refused)
        return theta + weight * (self.calibration(score, 0) - theta)

    def update(self, outcome: Outcome) -> None:
        """Count the tokens that were tried."""
        self.counts = [[count * self.memory for count in row] for row in self.counts]
        labels = list(self._tried(outcome))
        for score, _, accepted in labels:
            self.counts[bisect_right(self.edges, score)][0 if accepted else 1] += 1
        if self.calibration is not None:
            self.calibration.learn(labels)

    def _tried(self, outcome: Outcome) -> Iterator[tuple[float, int, bool]]:
        """Log probability and acceptance of the accepted tokens and the first refused one."""
        for row, path, drafted in zip(
            outcome.tree.scores.tolist(), outcome.path, outcome.drafted, strict=True
        ):
            for node in range(1, min(len(path) + 1, drafted) + 1):
                yield row[node] - row[node - 1], 0, node <= len(path)

    def state(self) -> dict[str, Any]:
        """Counts, calibration and the random generator."""
        learned = {} if self.calibration is None else self.calibration.state()
        random = self.random.bit_generator.state
        return deepcopy({"counts": self.counts, "calibration": learned, "random": random})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.counts = rows(state["counts"], len(self.counts), 2)
        if self.calibration is not None:
            self.calibration.restore(state["calibration"])
        self.random.bit_generator.state = state["random"]
