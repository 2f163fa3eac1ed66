"""Thompson sampling of the draft length; knows the draft's probabilities, no costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.rules.base import ChainRule
from policies.rules.calibration import Calibration, rows
from policies.rules.draws import beta, restored, seeded, uniform
from spec_core.doubt import Doubt, Judge, chances
from spec_core.odds import improbable
from spec_core.quick import compiled

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.plan import Plan
    from spec_core.session import Observation, Outcome


@compiled
def _draw(random, counts, prior, strength, bars):  # type: ignore[no-untyped-def]
    """What chances are to exceed: theta + weight (chance - theta) is to exceed a draw.

    counts: accepted and refused by bucket; strength: 0 where theta alone counts.
    """
    batch, levels, buckets, _ = bars.shape
    for b in range(batch):
        for level in range(levels):
            going = uniform(random)
            for k in range(buckets):
                theta = beta(random, prior[0] + counts[k, 0], prior[1] + counts[k, 1])
                if strength:
                    weight = strength / (strength + counts[k, 0] + counts[k, 1])
                    bars[b, level, k, 3] = theta + (going - theta) / weight
                else:
                    bars[b, level, k, 3] = -math.inf if going < theta else math.inf


@compiled
def _count(counts, bars, scores, b, tried, accepted):  # type: ignore[no-untyped-def]
    """Add a chain's tokens that were accepted, and the first that was not, to their buckets."""
    for node in range(1, tried + 1):
        step, bucket = scores[b, node] - scores[b, node - 1], 0
        for k in range(1, len(counts)):
            if bars[k, 0] <= step:
                bucket = k
        counts[bucket, 0 if node <= accepted else 1] += 1


@cache
def _ready() -> None:
    """Have the machine code at hand before a clock runs."""
    counts, bars = np.zeros((2, 2)), np.zeros((1, 2, 2, 4), np.float32)
    _draw(seeded(0), counts, (1.0, 1.0), 0.0, bars)
    _count(counts, bars[0, 0], np.zeros((1, 2)), 0, 1, 1)
    improbable(bars[0].reshape(-1, 4), 2, True, 1, 0.0, -1.0)


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
        assert depth >= 1, "depth must be at least 1"
        assert all(0 < e < 1 for e in edges) and sorted(edges) == list(edges), "edges must rise"
        assert len(prior) == 2 and min(prior) > 0, "the prior is Beta(a, b)"
        assert 0 < memory <= 1 and strength > 0
        _ready()
        self.levels = Doubt(judge=self._judge)
        self.edges, self.prior = [math.log(edge) for edge in edges], tuple(map(float, prior))
        self.memory, self.weigh = memory, strength if calibrated else 0.0
        self.counts = np.zeros((len(edges) + 1, 2))  # accepted, refused by bucket
        self.calibration = Calibration(1) if calibrated else None
        self.random = seeded(seed)
        self.bars = np.zeros((1, depth, len(edges) + 1, 4), np.float32)  # as `improbable` has them
        self.bars[..., 0] = [-math.inf, *self.edges]

    def plan(self, observation: Observation) -> list[Plan]:
        """A draw of theta, and one of going on, for each sequence, level and bucket to come."""
        if len(self.bars) != observation.batch:
            self.bars = np.repeat(self.bars[:1], observation.batch, 0)
        _draw(self.random, self.counts, self.prior, self.weigh, self.bars)
        if self.calibration is not None:
            self.bars[..., 1:3] = self.calibration.lines[0]
        return super().plan(observation)

    def _judge(self) -> Judge:
        """What was drawn, for machine code, of one text."""
        return chances(self.bars[0].reshape(-1, 4), len(self.counts), True)

    def stop(self, level: LevelView) -> list[bool]:
        """As it was drawn."""
        buckets, (before, now) = len(self.counts), level.numbers[-2:]
        return [
            improbable(bars.reshape(-1, 4), buckets, True, level.depth, above[0], path[0])
            for bars, above, path in zip(self.bars, before, now, strict=True)
        ]

    def update(self, outcome: Outcome) -> None:
        """Count the tokens that were tried."""
        scores, _ = outcome.tree.told
        if self.memory < 1:
            self.counts *= self.memory
        labels = list[tuple[float, bool]]()
        for b, (path, drafted) in enumerate(zip(outcome.path, outcome.drafted, strict=True)):
            tried = min(len(path) + 1, drafted)
            _count(self.counts, self.bars[0, 0], scores, b, tried, len(path))
            if self.calibration is not None:
                row = scores[b].tolist()
                labels += [(row[n] - row[n - 1], n <= len(path)) for n in range(1, tried + 1)]
        if self.calibration is not None and labels:
            steps, hits = np.array([labels]).transpose(2, 0, 1).copy()  # [1, N] each
            self.calibration.learn(steps, np.ones(steps.shape, np.int64), hits > 0)

    def state(self) -> dict[str, Any]:
        """Counts, calibration and the random generator."""
        learned = {} if self.calibration is None else self.calibration.state()
        counts, random = self.counts.tolist(), self.random.tolist()
        return {"counts": counts, "calibration": learned, "random": random}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        counts = np.array(rows(state["counts"], len(self.counts), 2))
        if not (np.isfinite(counts).all() and (counts >= 0).all()):
            raise ValueError("its counts are finite and not negative")
        self.counts = counts
        if self.calibration is not None:
            self.calibration.restore(state["calibration"])
        self.random = restored(state["random"])
