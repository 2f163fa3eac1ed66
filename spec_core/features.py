"""The features of training, decoding and replay: what they say and how they come about.

A cycle becomes `Facts` (numbers per sequence), facts move a `History` on, and history and context
become the vector. Replay makes facts from a recording and shares all that follows. The formulas
are those of arrays, over recordings, and of machine code for a batch, in decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spec_core.facts import Facts, address, facts, read, source, target_facts
from spec_core.quick import compiled, doubles, floats, masses, numbers

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.tree import Tree

__all__ = [
    "FEATURES", "LEVEL_FEATURES", "NAMES", "TREE_FEATURES", "VERSION", "Facts",
    "advance", "facts", "fresh", "level_features", "target_facts", "together", "tree_features",
    "vector",
]  # fmt: skip
Known = Literal["lagged", "before", "level", "after"]
Array = NDArray[np.float32]
Wide = NDArray[np.float64]
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
FRESH = np.array([*[0.0] * LAST, 0.25, 0.25, 0.5, 0.5, 0, 0, 0, 0, 0.25, 0, 0.25, 0])


def moved(history: Any, seen: Any) -> tuple:
    """A history after one more cycle: of numbers, or of arrays [B] with the same bits."""
    hit, drafted, depth, expected, trust, doubt, top, margin, entropy, surprise = seen
    (_, _, _, _, _, _, _, fast, slow, hit_fast, hit_slow, plus_fast, plus_slow,
     _, _, _, _, calm, since) = history  # fmt: skip
    tried = 1.0 * (depth > 0)
    full = (hit >= depth) * tried
    hits, accepted, expected, entropy = hit / (hit + 1 - full), hit / 8, expected / 8, entropy / 4
    surplus, newest, newer = accepted - expected, FAST * tried, SLOW * tried
    return (
        accepted, drafted / 16, depth / 8, full, expected, trust, doubt,
        fast + newest * (accepted - fast), slow + newer * (accepted - slow),
        hit_fast + newest * (hits - hit_fast), hit_slow + newer * (hits - hit_slow),
        plus_fast + newest * (surplus - plus_fast), plus_slow + newer * (surplus - plus_slow),
        top, margin / 4, entropy, surprise / 4, calm + SLOW * (entropy - calm),
        (1 - tried) * (since + (since < 1) / 8),
    )  # fmt: skip


def known(length: Any, remaining: Any, busy: Any, temperature: float, first: Any) -> tuple:
    """What is known besides a history: numbers or arrays [B]; busy: log2 of those at work."""
    near = 1.0 * (remaining < 64)
    rest = near * remaining / 64 + (1 - near)
    return length / 1024, rest, busy / 6, temperature, 1.0 * first


step, context = compiled(moved), compiled(known)  # of one sequence, as machine code


@compiled
def fill(rows, b, history, length, remaining, batch, temperature, first):  # type: ignore[no-untyped-def]
    """Write a sequence's features into its row."""
    for i in range(HISTORY):
        rows[b, i] = history[i]
    busy = math.log2(batch)
    for i, number in enumerate(context(length, remaining, busy, temperature, first)):
        rows[b, HISTORY + i] = number


@compiled
def follow(rows, b, history, length, remaining, batch, temperature, *where):  # type: ignore[no-untyped-def]
    """The same after one more cycle; where: its facts are read there."""
    for i, number in enumerate(step(numbers(history, HISTORY), read(*where))):
        history[i] = number
    fill(rows, b, history, length, remaining, batch, temperature, False)


@compiled
def follow_all(rows, texts, temperature, sources):  # type: ignore[no-untyped-def]
    """The same of a batch, of whose sequences some may not have been in its last cycle: place -1.

    texts: [B, 9] where a history is, and what is known; sources: of `facts.sources`.
    """
    for b in range(len(texts)):
        where, length, remaining, first, place, stop, hit, drafted, token = texts[b]
        history = doubles(where, HISTORY)
        if place < 0:
            fill(rows, b, history, length, remaining, len(texts), temperature, first)
        else:
            seen = source(sources, place, stop, hit, drafted, token)
            follow(rows, b, history, length, remaining, len(texts), temperature, *seen)


@compiled
def along(rows, history, length, remaining, temperature, scores, numbers, logits, *said):  # type: ignore[no-untyped-def]
    """The same of the only text; scores: [1, N] of its tree, logits: [1, N, V]. 0.

    numbers: of a `tree.Grown`, [4, 1, N], of a chain [4, 1, 0]; said: of `facts.said_of`.
    """
    _, stop, hit, drafted, token = said
    _, nodes, size = logits.shape
    parents = numbers[1].ctypes.data if numbers.shape[2] else 0
    depths = numbers[2].ctypes.data if numbers.shape[2] else 0
    tree = scores.ctypes.data, parents, depths, nodes, stop, hit, drafted
    place = logits.ctypes.data + stop * logits.strides[1]
    follow(rows, 0, history, length, remaining, 1, temperature, *tree, place, size, token)
    return 0


def fresh(batch: int) -> Wide:
    """The histories [B, HISTORY] of texts that have not begun."""
    return np.tile(FRESH, (batch, 1))


def advance(history: Wide, seen: Facts) -> Wide:
    """The histories [B, HISTORY] after one more cycle."""
    return np.stack(moved(history.T, np.array(seen, np.float64)), 1)


def vector(
    history: Wide, lengths: Array, remaining: Array, batch: Array, temperature: float, first: Array
) -> Array:
    """The features [B, len(FEATURES)] before a plan is chosen."""
    made = np.empty((len(history), len(FEATURES)), np.float32)
    busy = np.log2(batch.astype(np.float64))
    columns = known(lengths, remaining, busy, temperature, first)
    made[:, :HISTORY] = history
    for i, column in enumerate(columns, HISTORY):
        made[:, i] = column
    return made


def together(features: Array, starts: Any = (0,)) -> Array:
    """[batches, F] the mean of each batch's rows; in doubles, so that their order is no matter."""
    sums = np.add.reduceat(features, starts, dtype=np.float64)
    return (sums / np.diff([*starts, len(features)])[:, None]).astype(np.float32)


@compiled
def average(rows, made):  # type: ignore[no-untyped-def]
    """The same of one batch, written into made [1, F]."""
    for column in range(made.shape[1]):
        total = 0.0
        for b in range(len(rows)):
            total += float(rows[b, column])
        made[0, column] = total / len(rows)


def level_features(level: LevelView) -> Array:
    """[B, len(LEVEL_FEATURES)] after a draft level."""
    made = np.empty((len(level.numbers[-1]), len(LEVEL_FEATURES)), np.float32)
    fill_level(made, level)
    return made


def fill_level(rows: Array, level: LevelView) -> None:
    """Write them into the last columns of rows."""
    logs, pool, depth = level.near, level.numbers, level.depth
    _, width, size = logs.shape
    for b, now in enumerate(pool[-1]):
        best, mass, total = max(now), 0.0, 0.0
        for score in now:  # one after the other, as `spec_core.judge` adds them
            mass += exp(score)
        for scores in pool[1:]:
            for score in scores[b]:
                total += exp(score)
        parent = now.index(best) // max(1, len(now) // width)
        behind = address(logs, b, parent)
        place_level(rows, b, depth, best, max(pool[-2][b]), mass, total, behind, size)


@compiled
def entropy(logs, size):  # type: ignore[no-untyped-def]
    """Of a distribution, in nats; logs: where its logits or log probabilities are."""
    _, _, weight, cross = masses(floats(logs, size))
    return math.log(weight) - cross / weight


@compiled
def place_level(rows, b, depth, best, before, mass, total, logs, size):  # type: ignore[no-untyped-def]
    """Write a sequence's features after a level; logs: the draft's behind its best path."""
    step = max(best - before, -20.0) if before > -math.inf else -20.0
    doubt = entropy(logs, size)
    numbers = (depth / 8, max(best, -20.0) / 4, step / 4, mass, total / 8, doubt / 4)
    for i, number in enumerate(numbers):
        rows[b, rows.shape[1] - len(numbers) + i] = number


def tree_features(tree: Tree) -> Array:
    """[B, len(TREE_FEATURES)] of drafted trees, whose nodes come best first."""
    expected = tree.scores[:, 1:].exp().cumsum(1)
    places = [min(cut - 1, expected.shape[1]) - 1 for cut in CUTS]
    return (expected[:, places] / 8).float().cpu().numpy()
