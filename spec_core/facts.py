"""What a cycle said about its sequences, in numbers: of its trees, and of the target at the stops.

Knows no features and no history. Between two forwards every call finds cold caches, so the host's
part is plain numbers wherever an array would hold only a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence as Items
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spec_core.session import Outcome

Array = NDArray[np.float32]
Four = tuple[float, float, float, float]


class Facts(NamedTuple):
    """What a cycle said about a sequence: numbers, or arrays [B] of many sequences."""

    accepted: Any  # drafted tokens accepted
    drafted: Any  # nodes drafted
    depth: Any  # of the drafted tree
    expected: Any  # sum of the drafted nodes' path probabilities
    trust: Any  # mean log probability per accepted token; 0 where none was
    doubt: Any  # probability of the best child at the stop, given the stop; 0 without one
    top: Any  # log probabilities of the target at the stop
    margin: Any
    entropy: Any
    surprise: Any  # log probability of the bonus


def facts(outcome: Outcome) -> list[Facts]:
    """Read each sequence's facts of one cycle from its outcome."""
    stops = [path[-1] if path else 0 for path in outcome.path]
    if outcome.logits.is_cpu:
        rows = outcome.logits.float().numpy()
        said = [told(rows[b, stop], outcome.bonus[b]) for b, stop in enumerate(stops)]
    else:
        said = told_on_device(stop_logits(outcome), outcome.bonus)
    parts = zip(outcome.accepted, outcome.drafted, _shapes(outcome), said, strict=True)
    return [Facts(accepted, drafted, *drawn, *seen) for accepted, drafted, drawn, seen in parts]


def _shapes(outcome: Outcome) -> Iterator[Four]:
    tree, scores = outcome.tree, outcome.tree.scores.tolist()
    if tree.chain:
        depths = range(tree.nodes)
        return map(shape_facts, scores, repeat([0, *depths]), repeat(depths), outcome.path)
    return map(shape_facts, scores, tree.parents.tolist(), tree.depths.tolist(), outcome.path)


def stop_logits(outcome: Outcome) -> torch.Tensor:
    """The target's logits [B, V] where each walk stopped."""
    stops = [path[-1] if path else 0 for path in outcome.path]
    return torch.stack([outcome.logits[b, stop] for b, stop in enumerate(stops)]).float()


def shape_facts(
    scores: list[float], parents: Items[int], depths: Items[int], path: list[int]
) -> Four:
    """Depth, expected acceptance, trust and doubt of one tree and the path accepted in it."""
    stop = path[-1] if path else 0
    deepest, expected, best = 0, 0.0, -math.inf
    for node in range(1, len(scores)):
        score = scores[node]
        if score == -math.inf:
            continue
        expected += math.exp(score)  # in order: a sum that does not depend on padding
        if depths[node] > deepest:
            deepest = depths[node]
        if parents[node] == stop and score > best:
            best = score
    trust = scores[stop] / len(path) if path else 0.0
    return deepest, expected, trust, math.exp(best - scores[stop])


def told(logits: Array, token: int) -> Four:
    """Top, margin, entropy and surprise of a token under the target's logits [V]."""
    best = logits.argmax()
    shifted = logits + -logits[best]
    weights = np.exp(shifted)
    total, cross = float(np.vdot(weights, _ones(len(logits)))), float(np.vdot(weights, shifted))
    if math.isnan(cross):  # 0 * -inf
        cross = float(np.vdot(weights, np.maximum(shifted, np.float32(-1e4))))
    mass, chosen = math.log(total), float(shifted[token])
    shifted[best] = -np.inf
    return -mass, -float(shifted[shifted.argmax()]), mass - cross / total, chosen - mass


@lru_cache(maxsize=4)
def _ones(size: int) -> Array:
    """To sum by a dot product, of which the other sum needs the code as well."""
    return np.ones(size, np.float32)


def target_facts(logits: Array, tokens: list[int]) -> tuple[Array, ...]:
    """The same four of tokens [N] under logits [N, V], an array [N] each."""
    return tuple(np.array(list(map(told, logits, tokens)), np.float32).T)


def told_on_device(rows: torch.Tensor, tokens: list[int]) -> list[Four]:
    """The same four of rows [B, V] far from the host: reduced there, and read at once."""
    logs = rows.clamp(min=-1e4).log_softmax(-1)
    best = logs.topk(2, -1).values
    entropy = -(logs.exp() * logs).sum(-1, keepdim=True)
    chosen = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])
    read = torch.cat((best, entropy, chosen), 1).tolist()
    return [(top, top - second, spread, bonus) for top, second, spread, bonus in read]
