"""The one feature extractor, used in training, decoding and replay; never sees text.

A cycle becomes `Facts` (numbers per sequence), facts move a `History` on, and history and context
become the vector. Replay makes facts from a recording and shares all that follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spec_core.facts import Facts, facts, stop_logits, target_facts

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.session import Observation, Outcome
    from spec_core.tree import Tree

__all__ = [
    "FEATURES", "LEVEL_FEATURES", "NAMES", "TREE_FEATURES", "VERSION", "Extractor", "Facts",
    "advance", "facts", "fresh", "level_features", "target_facts", "together", "tree_features",
    "vector",
]  # fmt: skip
Known = Literal["lagged", "before", "level", "after"]
Array = NDArray[np.float32]
Wide = NDArray[np.float64]
Six = tuple[float, float, float, float, float, float]
VERSION = 1
FAST, SLOW = 0.5, 0.1  # weights of the newest cycle in the averages


@dataclass(frozen=True)
class Feature:
    """One number: its name, when it is known, and what it says."""

    name: str
    known: Known
    meaning: str


FEATURES = tuple(
    Feature(*row)
    for row in (
        ("accepted", "lagged", "drafted tokens accepted in the last cycle, / 8"),
        ("drafted", "lagged", "nodes drafted in the last cycle, / 16"),
        ("depth", "lagged", "depth of the last tree, / 8"),
        ("full", "lagged", "1 if the last tree was accepted to its full depth"),
        ("expected", "lagged", "accepted tokens that the draft expected of the last tree, / 8"),
        ("trust", "lagged", "mean log probability of the last accepted path under the draft"),
        ("doubt", "lagged", "draft probability of the best child where the last walk stopped"),
        ("accepted_fast", "lagged", "average of accepted, the newest weighs 0.5"),
        ("accepted_slow", "lagged", "average of accepted, the newest weighs 0.1"),
        ("hit_fast", "lagged", "share of tried draft tokens that were accepted, newest 0.5"),
        ("hit_slow", "lagged", "share of tried draft tokens that were accepted, newest 0.1"),
        ("surplus_fast", "lagged", "accepted less expected, / 8, newest 0.5"),
        ("surplus_slow", "lagged", "accepted less expected, / 8, newest 0.1"),
        ("top", "lagged", "log probability of the target's best token where the walk stopped"),
        ("margin", "lagged", "its lead over the second best, in log probability, / 4"),
        ("entropy", "lagged", "entropy of the target there, in nats, / 4"),
        ("surprise", "lagged", "log probability of the bonus token under the target, / 4"),
        ("entropy_slow", "lagged", "average of entropy, the newest weighs 0.1"),
        ("since", "lagged", "cycles since something was drafted, / 8"),
        ("length", "before", "tokens of the text so far, / 1024"),
        ("remaining", "before", "tokens that may still come, up to 64, / 64"),
        ("batch", "before", "log2 of the sequences at work, / 6"),
        ("temperature", "before", "the temperature"),
        ("first", "before", "1 in a text's first cycle"),
    )
)
LEVEL_FEATURES = tuple(
    Feature(*row)
    for row in (
        ("level", "level", "draft levels so far, / 8"),
        ("path", "level", "log probability of this level's best path, / 4"),
        ("step", "level", "its loss on the best path a level before, / 4"),
        ("mass", "level", "sum of this level's path probabilities"),
        ("total", "level", "sum of path probabilities of all levels, / 8"),
        ("doubt_level", "level", "entropy of the draft behind the best path, in nats, / 4"),
    )
)
CUTS = (2, 3, 5, 9, 17, 33)  # node counts at which `TREE_FEATURES` look at a drafted tree
TREE_FEATURES = tuple(
    Feature(f"gain_{cut - 1}", "after", f"accepted tokens expected of {cut - 1} nodes, / 8")
    for cut in CUTS
)
NAMES = tuple(feature.name for feature in FEATURES)
TIMELESS = {NAMES.index(name) for name in ("length", "remaining", "batch", "temperature")}


# A history, HISTORY numbers: what is carried from cycle to cycle.
LAST, AVERAGES = 7, 6  # the first seven features as they are, then the averages
HISTORY = LAST + AVERAGES + 6  # then top, margin, entropy, surprise, entropy_slow, since
_FRESH = [0.0] * LAST + [0.25, 0.25, 0.5, 0.5, 0.0, 0.0] + [0.0, 0.0, 0.25, 0.0, 0.25, 0.0]


def moved(history: Any, seen: Facts) -> list[Any]:
    """A history after one more cycle: of numbers, or of arrays [B] with the same bits."""
    hit, drafted, depth, expected, trust, doubt, top, margin, entropy, surprise = seen
    fast, slow, hit_fast, hit_slow, plus_fast, plus_slow = history[LAST : LAST + AVERAGES]
    calm, since = history[HISTORY - 2 :]
    tried = depth > 0
    full = (hit >= depth) & tried
    hits, accepted, expected, entropy = hit / (hit + 1 - full), hit / 8, expected / 8, entropy / 4
    surplus, newest, newer = accepted - expected, FAST * tried, SLOW * tried
    return [
        accepted, drafted / 16, depth / 8, full, expected, trust, doubt,
        fast + newest * (accepted - fast), slow + newer * (accepted - slow),
        hit_fast + newest * (hits - hit_fast), hit_slow + newer * (hits - hit_slow),
        plus_fast + newest * (surplus - plus_fast), plus_slow + newer * (surplus - plus_slow),
        top, margin / 4, entropy, surprise / 4, calm + SLOW * (entropy - calm),
        (1 - tried) * (since + (since < 1) / 8),
    ]  # fmt: skip


def known(
    history: Any, length: Any, remaining: Any, busy: Any, temperature: float, first: Any
) -> list[Any]:
    """All features, of numbers or of arrays [B]; busy: log2 of the sequences at work."""
    near = remaining < 64
    rest = near * remaining / 64 + (1 - near)
    return [*history, length / 1024, rest, busy / 6, temperature, first]


def fresh(batch: int) -> Wide:
    """The histories [B, HISTORY] of texts that have not begun."""
    return np.tile(np.array(_FRESH), (batch, 1))


def advance(history: Wide, seen: Facts) -> Wide:
    """The histories [B, HISTORY] after one more cycle."""
    return np.stack(moved(history.T, Facts(*np.array(seen, np.float64))), 1)


def vector(
    history: Wide, lengths: Array, remaining: Array, batch: Array, temperature: float, first: Array
) -> Array:
    """The features [B, len(FEATURES)] before a plan is chosen."""
    made = np.empty((len(history), len(FEATURES)), np.float32)
    busy = np.log2(batch.astype(np.float64))
    columns = known((), lengths, remaining, busy, temperature, first)
    made[:, :HISTORY] = history
    for i, column in enumerate(columns, HISTORY):
        made[:, i] = column
    return made


def together(features: Array, starts: Any = (0,)) -> Array:
    """[batches, F] the mean of each batch's rows; in doubles, so that their order is no matter."""
    sums = np.add.reduceat(features, starts, dtype=np.float64)
    return (sums / np.diff([*starts, len(features)])[:, None]).astype(np.float32)


class Extractor:
    """Follows the requests of one session and gives their features; one call per cycle."""

    def __init__(self, projections: int = 0) -> None:
        self.projections = projections  # low-rank features of the target's last hidden state
        self.requests: dict[int, list[float]] = {}
        self.hidden: dict[int, Array] = {}
        self.seen: list | None = None  # the last outcome's paths; to hold all of it costs time
        self.matrix: Array | None = None

    @property
    def size(self) -> int:
        """Floats per sequence."""
        return len(FEATURES) + self.projections

    def observe(self, observation: Observation) -> Array:
        """The features [B, size] of the sequences at work."""
        if observation.last is None:
            self.requests, self.hidden = {}, {}
        elif observation.last.path is not self.seen:
            self._learn(observation.last)
            self.seen = observation.last.path
        seen = self.requests
        rows, busy, heat = observation.rows, math.log2(observation.batch), observation.temperature
        entries = zip(rows, observation.lengths, observation.remaining, strict=True)
        made = np.array([
            known(seen.get(row, _FRESH), length, remaining, busy, heat, row not in seen)
            for row, length, remaining in entries
        ], np.float32)  # fmt: skip
        if not self.projections:
            return made
        nothing = np.zeros(self.projections, np.float32)
        return np.hstack((made, [self.hidden.get(row, nothing) for row in rows]))

    def _learn(self, outcome: Outcome) -> None:
        for row, seen in zip(outcome.rows, facts(outcome), strict=True):
            self.requests[row] = moved(self.requests.get(row, _FRESH), seen)
        if self.projections:
            self.hidden |= dict(zip(outcome.rows, self._project(outcome), strict=True))

    def _project(self, outcome: Outcome) -> Array:
        """Fixed random directions of the logits: a linear map of the target's last hidden state."""
        logits: Array = stop_logits(outcome).cpu().numpy()
        if self.matrix is None:
            noise = np.random.default_rng(0).standard_normal((logits.shape[1], self.projections))
            self.matrix = (noise / logits.shape[1] ** 0.5).astype(np.float32)
        return (logits - logits.mean(1, keepdims=True)) @ self.matrix / 4


def level_features(level: LevelView) -> Array:
    """[B, len(LEVEL_FEATURES)] after a draft level; plain numbers cost half of arrays."""
    return np.array(level_numbers(level), np.float32)


def level_numbers(level: LevelView) -> list[Six]:
    """The same, unrounded."""
    pool, logs, made = level.numbers, level.logs.cpu().numpy(), list[Six]()
    each = max(1, len(pool[-1][0]) // logs.shape[1])
    for b, now in enumerate(pool[-1]):
        best, before = max(now), max(pool[-2][b])
        step = best - before if before > -math.inf else -20.0
        total = sum([math.exp(score) for scores in pool[1:] for score in scores[b]])
        made.append((
            level.depth / 8, max(best, -20.0) / 4, max(step, -20.0) / 4, sum(map(math.exp, now)),
            total / 8, _entropy(logs[b, now.index(best) // each]) / 4,
        ))  # fmt: skip
    return made


def _entropy(logs: Array) -> float:
    """Of a distribution's log probabilities."""
    chances = np.exp(logs)
    cross = float(np.vdot(chances, logs))
    return -cross if cross > -math.inf else -float(np.vdot(chances, np.maximum(logs, -1e4)))


def tree_features(tree: Tree) -> Array:
    """[B, len(TREE_FEATURES)] of drafted trees, whose nodes come best first."""
    expected = tree.scores[:, 1:].exp().cumsum(1)
    places = [min(cut - 1, expected.shape[1]) - 1 for cut in CUTS]
    return (expected[:, places] / 8).float().cpu().numpy()
