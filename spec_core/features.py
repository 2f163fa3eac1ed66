"""The one feature extractor, used in training, decoding and replay; never sees text.

A cycle becomes `Facts` (numbers per sequence), facts move a `History` on, and history and context
become the vector. Replay makes facts from a recording and shares all that follows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.session import Observation, Outcome
    from spec_core.tree import Tree

Known = Literal["lagged", "before", "level", "after"]
Array = NDArray[np.float32]
VERSION = 1
FAST, SLOW = np.float32(0.5), np.float32(0.1)  # weights of the newest cycle in the averages


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


@dataclass
class Facts:
    """What a cycle said about each sequence; arrays [B]."""

    accepted: Array  # drafted tokens accepted
    drafted: Array  # nodes drafted
    depth: Array  # of the drafted tree
    expected: Array  # sum of the drafted nodes' path probabilities
    trust: Array  # mean log probability per accepted token; 0 where none was
    doubt: Array  # probability of the best child at the stop, given the stop; 0 without one
    top: Array  # log probabilities of the target at the stop
    margin: Array
    entropy: Array
    surprise: Array  # log probability of the bonus

    def take(self, rows: list[int]) -> Facts:
        """The same facts of some entries."""
        return Facts(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def facts(outcome: Outcome) -> Facts:
    """Read one cycle's facts from its outcome."""
    batch, tree = len(outcome.rows), outcome.tree
    drawn = np.zeros((batch, 4), np.float32)  # depth, expected, trust, doubt
    if tree.nodes > 1:
        scores, parents = tree.scores.float().tolist(), tree.parents.tolist()
        depths = tree.depths.tolist()
        for b, path in enumerate(outcome.path):
            drawn[b] = shape_facts(scores[b], parents[b], depths[b], path)
    told = target_facts(stop_logits(outcome), outcome.bonus)
    counts = (np.array(c, np.float32) for c in (outcome.accepted, outcome.drafted))
    return Facts(*counts, *drawn.T, *told)  # type: ignore[call-arg]


def stop_logits(outcome: Outcome) -> Array:
    """The target's logits [B, V] where each walk stopped, on the host."""
    rows = [outcome.logits[b, path[-1] if path else 0] for b, path in enumerate(outcome.path)]
    return np.stack([row.float().cpu().numpy() for row in rows])


def shape_facts(
    scores: list[float], parents: list[int], depths: list[int], path: list[int]
) -> tuple[float, float, float, float]:
    """Depth, expected acceptance, trust and doubt of one tree and the path accepted in it."""
    finite = [n for n in range(1, len(scores)) if scores[n] > -np.inf]
    if not finite:
        return 0.0, 0.0, 0.0, 0.0
    stop = path[-1] if path else 0
    best = max((scores[n] for n in finite if parents[n] == stop), default=-np.inf)
    expected = np.float32(0)
    for score in np.exp(np.array([scores[n] for n in finite], np.float32)):
        expected += score  # in order: a sum that does not depend on padding
    return (
        max(depths[n] for n in finite), float(expected),
        scores[stop] / len(path) if path else 0.0, float(np.exp(np.float32(best - scores[stop]))),
    )  # fmt: skip


def target_facts(logits: Array, tokens: list[int]) -> tuple[Array, Array, Array, Array]:
    """Top, margin, entropy and surprise of tokens [N] under the target's logits [N, V]."""
    rows = np.arange(len(logits))
    best = logits.argmax(1)
    shifted = logits - logits[rows, best][:, None]
    weights = np.exp(shifted)
    total = weights.sum(1)
    mass, chosen = np.log(total), shifted[rows, tokens]
    weights *= np.maximum(shifted, np.float32(-1e4))  # 0 * -inf is no number
    entropy = mass - weights.sum(1) / total
    shifted[rows, best] = -np.inf
    return -mass, -shifted.max(1), entropy, chosen - mass


# Columns of a history, [B, HISTORY] float32: what is carried from cycle to cycle.
LAST, AVERAGES = 7, 6  # the first seven features as they are, then the averages
HISTORY = LAST + AVERAGES + 6  # then top, margin, entropy, surprise, entropy_slow, since
_FRESH = np.array([0] * LAST + [0.25, 0.25, 0.5, 0.5, 0, 0] + [0, 0, 0.25, 0, 0.25, 0], np.float32)


def fresh(batch: int) -> Array:
    """The histories of texts that have not begun."""
    return np.tile(_FRESH, (batch, 1))


def advance(history: Array, seen: Facts) -> Array:
    """The histories [B, HISTORY] after one more cycle."""
    made = history.copy()
    tried = seen.depth > 0
    full = (seen.accepted >= seen.depth) & tried
    eighth, quarter = np.float32(1 / 8), np.float32(1 / 4)
    accepted, expected = seen.accepted * eighth, seen.expected * eighth
    made[:, 0], made[:, 1], made[:, 2] = (
        accepted,
        seen.drafted * np.float32(1 / 16),
        seen.depth * eighth,
    )
    made[:, 3], made[:, 4], made[:, 5], made[:, 6] = full, expected, seen.trust, seen.doubt
    hits = seen.accepted / np.maximum(seen.accepted + ~full, 1)
    news = np.stack((accepted, accepted, hits, hits, accepted - expected, accepted - expected), 1)
    weights = np.array((FAST, SLOW) * 3, np.float32) * tried[:, None].astype(np.float32)
    averages = made[:, LAST : LAST + AVERAGES]
    averages += weights * (news.astype(np.float32) - averages)
    told = made[:, LAST + AVERAGES :]
    told[:, 0], told[:, 1] = seen.top, seen.margin * quarter
    told[:, 2], told[:, 3] = seen.entropy * quarter, seen.surprise * quarter
    told[:, 4] += SLOW * (told[:, 2] - told[:, 4])
    told[:, 5] = np.where(tried, np.float32(0), np.minimum(told[:, 5] + eighth, np.float32(1)))
    return made


def vector(
    history: Array, lengths: Array, remaining: Array, batch: Array, temperature: float, first: Array
) -> Array:
    """The features [B, len(FEATURES)] before a plan is chosen."""
    made = np.empty((len(history), len(FEATURES)), np.float32)
    made[:, :HISTORY] = history
    made[:, HISTORY] = lengths / np.float32(1024)
    made[:, HISTORY + 1] = np.minimum(remaining, np.float32(64)) / np.float32(64)
    made[:, HISTORY + 2] = np.log2(batch) / np.float32(6)
    made[:, HISTORY + 3] = temperature
    made[:, HISTORY + 4] = first
    return made


class Extractor:
    """Follows the requests of one session and gives their features; one call per cycle."""

    def __init__(self, projections: int = 0) -> None:
        self.projections = projections  # low-rank features of the target's last hidden state
        self.requests: dict[int, Array] = {}
        self.hidden: dict[int, Array] = {}
        self.seen: Outcome | None = None
        self.matrix: Array | None = None

    @property
    def size(self) -> int:
        """Floats per sequence."""
        return len(FEATURES) + self.projections

    def observe(self, observation: Observation) -> Array:
        """The features [B, size] of the sequences at work."""
        if observation.last is None:
            self.requests, self.hidden = {}, {}
        elif observation.last is not self.seen:
            self._learn(observation.last)
        self.seen = observation.last
        batch = observation.batch
        rows = [self.requests.get(row, _FRESH) for row in observation.rows]
        made = vector(
            np.stack(rows), np.array(observation.lengths, np.float32),
            np.array(observation.remaining, np.float32), np.full(batch, batch, np.float32),
            observation.temperature,
            np.array([row not in self.requests for row in observation.rows], np.float32),
        )  # fmt: skip
        if not self.projections:
            return made
        nothing = np.zeros(self.projections, np.float32)
        return np.hstack((made, [self.hidden.get(row, nothing) for row in observation.rows]))

    def _learn(self, outcome: Outcome) -> None:
        before = np.stack([self.requests.get(row, _FRESH) for row in outcome.rows])
        after = advance(before, facts(outcome))
        self.requests |= dict(zip(outcome.rows, after, strict=True))
        if self.projections:
            self.hidden |= dict(zip(outcome.rows, self._project(outcome), strict=True))

    def _project(self, outcome: Outcome) -> Array:
        """Fixed random directions of the logits: a linear map of the target's last hidden state."""
        logits = stop_logits(outcome)
        if self.matrix is None:
            noise = np.random.default_rng(0).standard_normal((logits.shape[1], self.projections))
            self.matrix = (noise / logits.shape[1] ** 0.5).astype(np.float32)
        return (logits - logits.mean(1, keepdims=True)) @ self.matrix / 4


def level_features(level: LevelView) -> Array:
    """[B, len(LEVEL_FEATURES)] after a draft level."""
    best = [scores.amax(1) for scores in level.pool[-2:]]
    mass = level.scores.exp().sum(1)
    total = torch.stack([scores.exp().sum(1) for scores in level.pool[1:]]).sum(0)
    entropy = level.entropy
    behind = level.scores.argmax(1) // max(1, level.scores.shape[1] // entropy.shape[1])
    made = torch.stack(
        (
            torch.full_like(mass, level.depth / 8), best[1].clamp(min=-20) / 4,
            (best[1] - best[0]).nan_to_num(-20.0).clamp(min=-20) / 4, mass, total / 8,
            entropy.gather(1, behind[:, None])[:, 0] / 4,
        ),
        1,
    )  # fmt: skip
    return made.float().cpu().numpy()


def tree_features(tree: Tree) -> Array:
    """[B, len(TREE_FEATURES)] of drafted trees, whose nodes come best first."""
    expected = tree.scores[:, 1:].exp().cumsum(1)
    places = [min(cut - 1, expected.shape[1]) - 1 for cut in CUTS]
    return (expected[:, places] / 8).float().cpu().numpy()
