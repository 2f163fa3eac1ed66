"""An acceptance head for the stop head (SpecDec++): will the walk survive the next token?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policies.learners.base import Array, Choices, Seat, Wide
from policies.learners.loop import Memory, Step
from policies.learners.networks import Net, fit
from policies.learners.supervised import Fitted
from spec_core.chooser import Chooser, Network
from spec_core.features import LEVEL_FEATURES, NAMES

NUMBER, LEVEL, SURVIVED = range(3)  # what stands before the features of a level
ACCEPTED, DEPTH, SECONDS, WHOLE = range(1, 5)  # behind the number of a cycle
LEVELS = -len(LEVEL_FEATURES)  # where features tell the level
SURE = 30.0  # a logit that is never reached


class SpecDecPP(Fitted):
    """Predicts survival through the next token from a level's features; stops below a cut.

    It drafts to full depth, and in a share of the cycles to a depth drawn at random, from which
    a level's cost is measured. threshold: stop where the chance of a refusal exceeds it; without
    one, the cut is that of the most tokens per second on the cycles seen. reads: the features by
    which it predicts; none: all.
    """

    heads = ("stop",)
    kept = ("levels", "cycles", "count")

    def __init__(
        self, seat: Seat, seed: int = 0, threshold: float | None = None, exploring: float = 0.25,
        hidden: Sequence[int] = (64, 64), updates: int = 3000, reads: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, exploring)
        assert seat.plan is not None
        if threshold is None and not exploring:
            raise ValueError("a level's cost shows only where depths differ: exploring must be > 0")
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, not {threshold}")
        self.threshold, self.depth = threshold, seat.plan.depth
        self.hidden, self.updates, self.unread = tuple(hidden), updates, _others(seat.inputs, reads)
        self.levels, self.cycles = Memory(seat.inputs + 3), Memory(5)
        self.count = np.zeros(1, np.int64)  # cycles so far
        self.begin(seat.num_envs)

    def begin(self, num_envs: int) -> None:
        """Nobody has drafted."""
        self.paths: list[list[Array]] = [[] for _ in range(num_envs)]
        self.limits = np.zeros(num_envs, np.int64)  # levels to draft at most; 0: to be drawn

    def act(self, features: Array) -> Choices:
        """Draft on, unless a drawn depth is reached; who begin together share a draw."""
        explore = self.random.random() < self.exploring
        limit = self.random.integers(1, self.depth) if explore and self.depth > 1 else self.depth
        self.limits[self.limits == 0] = limit
        return (_level(features) >= self.limits).astype(np.int64)

    def see(self, step: Step) -> None:
        """Follow every cycle to its end."""
        for i in np.flatnonzero(step.active):
            self.paths[i].append(step.features[i])
        cycles = step.told("cycles") if "cycles" in step.infos else step.ended
        for i in np.flatnonzero(step.ended):
            if cycles[i] == 1:  # more: the end of another text is counted in
                told = [step.told(name)[i] for name in ("accepted", "depth", "seconds")]
                asked = self.paths[i]
                self._end(asked, told, not asked or _level(asked[-1]) < self.limits[i])
            self.paths[i], self.limits[i] = [], 0

    def _end(self, path: list[Array], told: list[float], whole: bool) -> None:
        """Remember a cycle; where it was stopped, its last level says nothing of the next."""
        number = self.count[0]
        self.count = self.count + 1
        self.cycles.add(np.array([[number, *told, whole]]))
        known = path if whole else path[:-1]
        if known:
            features = np.stack(known)
            numbers, level = np.full(len(known), number), _level(features)
            self.levels.add(np.column_stack((numbers, level, told[0] > level, features)))

    def fit(self) -> Net:
        """Logistic loss on survival."""
        rows = self.levels.rows
        if not len(rows):
            raise ValueError("no level was ever followed by another; give a deeper plan")
        survived = torch.from_numpy(rows[:, SURVIVED].copy())

        def loss(outputs: Tensor, at: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], survived[at])

        known = rows[:, 3:].copy()
        known[:, self.unread] = 0
        net = fit(known, loss, 1, self.hidden, self.seed, self.updates)
        with torch.no_grad():
            net.layers[0].weight[:, self.unread] = 0  # type: ignore[operator]
        self.cut = self._cut(net.predict(known)[:, 0])
        return net

    def _cut(self, logits: Array) -> np.float32:
        """The logit of survival below which drafting stops."""
        if self.threshold is not None:
            return np.float32(np.log((1 - self.threshold) / self.threshold))
        cuts = np.concatenate(([-SURE, SURE], np.quantile(logits, np.linspace(0, 1, 101))))
        cycles = self.cycles.rows[self.cycles.rows[:, WHOLE] == 1]
        table = self._table(cycles[:, 0], logits)
        cost = level_cost(*self.cycles.rows[:, [DEPTH, SECONDS]].T.astype(np.float64))
        rates = [stopped_rate(table < cut, cycles, cost) for cut in cuts]
        return np.float32(cuts[int(np.argmax(rates))])

    def _table(self, numbers: Wide, logits: Array) -> Wide:
        """Logits by cycle and level, [cycles, depth + 1]; sure to survive where nobody asked."""
        rows = self.levels.rows
        mine = np.isin(rows[:, NUMBER], numbers)
        table = np.full((len(numbers), self.depth + 1), np.inf)
        places = numbers.searchsorted(rows[mine, NUMBER]), rows[mine, LEVEL].astype(np.int64)
        table[places] = logits[mine]
        return table

    def best(self, features: Array) -> Choices:
        """Stop where survival is less likely than the cut."""
        return (self.net.predict(features)[:, 0] < self.cut).astype(np.int64)

    def chooser(self) -> Chooser:
        """Two scores: the logit of survival, and the cut."""
        network = self.net.network()
        weight, bias = network.weights[-1], network.biases[-1]
        weights = [*network.weights[:-1], np.vstack((weight, np.zeros_like(weight)))]
        return Network(weights, [*network.biases[:-1], np.append(bias, self.cut)])

    def metrics(self) -> dict[str, float]:
        """Of all cycles so far."""
        rows = self.cycles.rows
        if not len(rows):
            return {}
        base, more = level_cost(*rows[:, [DEPTH, SECONDS]].T.astype(np.float64))
        accepted = float(rows[:, ACCEPTED].mean())
        return {"accepted": accepted, "seconds_base": base, "seconds_level": more}


class FittedMarginal(SpecDecPP):
    """The marginal rule of serving engines, fitted once: survival by path probability and level.

    It goes on while the chance that the walk survives is worth what the next level costs.
    """

    def __init__(
        self, seat: Seat, seed: int = 0, exploring: float = 0.25, hidden: Sequence[int] = (16,),
        updates: int = 3000,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, None, exploring, hidden, updates, ("level", "path"))


def _others(inputs: int, reads: Sequence[str]) -> list[int]:
    """The columns of a stop head's features that are not among those named; none named: none."""
    level = [feature.name for feature in LEVEL_FEATURES]
    places = {name: inputs - len(level) + i for i, name in enumerate(level)}
    places |= {name: i for i, name in enumerate(NAMES)}
    for name in reads:
        if name not in places:
            raise ValueError(f"there is no feature {name!r}; known: {', '.join(places)}")
    kept = {places[name] for name in reads}
    return [i for i in range(inputs) if i not in kept] if kept else []


def _level(features: Array) -> Any:
    """Draft levels so far."""
    return np.rint(8 * features[..., LEVELS]).astype(np.int64)


def level_cost(depth: Wide, seconds: Wide) -> tuple[float, float]:
    """Seconds of a cycle without levels, and of each level: a line through the cycles."""
    seconds = np.minimum(seconds, np.quantile(seconds, 0.99))
    if np.ptp(depth) == 0:
        return float(seconds.mean()), 0.0
    more, base = np.polyfit(depth, seconds, 1)
    return float(base), max(float(more), 0.0)


def stopped_rate(stops: np.ndarray, cycles: Wide, cost: tuple[float, float]) -> float:
    """Tokens per second of whole cycles had they ended at their first stop, [cycles, levels]."""
    depth = np.where(stops.any(1), stops.argmax(1), cycles[:, DEPTH])
    tokens = np.minimum(cycles[:, ACCEPTED], depth) + 1
    return float(tokens.sum() / max((cost[0] + cost[1] * depth).sum(), 1e-12))
