"""What a cycle said about its sequences, in numbers: of its trees, and of the target at the stops.

Knows no features and no history. Between two forwards every call finds cold caches, so what is
read of tensors in the host's memory is read where it is, by one call for all sequences.
"""

from __future__ import annotations

import math
from ctypes import addressof, c_char
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spec_core.quick import Four, compiled, floats, masses, wholes
from spec_core.tree import Grown, Line, Tree

if TYPE_CHECKING:
    from spec_core.session import Outcome

Array = NDArray[np.float32]


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


@compiled
def drawn(scores, parents, depths, nodes, stop, accepted):  # type: ignore[no-untyped-def]
    """Depth, expected acceptance, trust and doubt of a tree at these addresses and its path.

    A chain's parents and depths are known, and stand nowhere: at 0.
    """
    seen, chain = floats(scores, nodes), parents == 0
    above, below = wholes(parents, nodes), wholes(depths, nodes)
    deepest, expected, best = 0, 0.0, -math.inf
    for node in range(1, nodes):
        score = 1.0 * seen[node]  # in doubles
        if score == -math.inf:
            continue
        expected += math.exp(score)  # in order: a sum that does not depend on padding
        deepest = max(deepest, node if chain else below[node])
        if (node - 1 if chain else above[node]) == stop:
            best = max(best, score)
    here = 1.0 * seen[stop]
    return 1.0 * deepest, expected, here / max(accepted, 1), math.exp(best - here)


@compiled
def told(logits, token):  # type: ignore[no-untyped-def]
    """Top, margin, entropy and surprise of a token under the target's logits [V]."""
    top, second, total, cross = masses(logits)
    mass = math.log(total)
    return -mass, top - second, mass - cross / total, logits[token] - top - mass


@compiled
def read(scores, parents, depths, nodes, stop, accepted, drafted, logits, size, token):  # type: ignore[no-untyped-def]
    """The facts of one sequence, its tree and the target's logits at the stop being there."""
    shape = drawn(scores, parents, depths, nodes, stop, accepted)
    return (1.0 * accepted, 1.0 * drafted, *shape, *told(floats(logits, size), token))


def facts(outcome: Outcome) -> list[Facts]:
    """Read each sequence's facts of one cycle from its outcome."""
    if at_hand(outcome):
        where = sources(outcome)
        return [Facts(*read(*source(where, *said))) for said in said_of(outcome)]
    said = told_on_device(stop_logits(outcome), outcome.bonus)
    tree, found = on_host(outcome.tree), list[Facts]()
    for b, path in enumerate(outcome.path):
        stop, hit = path[-1] if path else 0, len(path)
        scores, *above = [0 if part is None else address(part, b) for part in _tree(tree)]
        shape = drawn(scores, *above, tree.nodes, stop, hit)
        found.append(Facts._make((hit, outcome.drafted[b], *shape, *said[b])))
    return found


def on_host(tree: Tree) -> Tree:
    """A copy of what is read of a tree, within reach of `drawn`."""
    parts = {name: getattr(tree, name).cpu() for name in ("scores", "parents", "depths")}
    return Tree(tree.tokens, expanded=tree.expanded, depth=tree.depth, chain=tree.chain, **parts)


def at_hand(outcome: Outcome) -> bool:
    """Whether `read` can read the target's logits; the same for all outcomes of a session."""
    logits = outcome.scored
    if isinstance(logits, np.ndarray):
        return True
    return logits.stride()[2] == 1 and logits.is_cpu and logits.dtype is torch.float32


def said_of(outcome: Outcome) -> list[tuple[int, ...]]:
    """Every sequence's place, stop, accepted and drafted nodes, and bonus."""
    said = enumerate(zip(outcome.path, outcome.drafted, outcome.bonus, strict=True))
    return [(b, path[-1] if path else 0, len(path), *rest) for b, (path, *rest) in said]


@compiled
def source(sources, b, stop, hit, drafted, token):  # type: ignore[no-untyped-def]
    """What `read` wants of sequence b, while the outcome is kept that `sources` is of."""
    scores, parents, depths, logits, nodes, size, by, above, below, row, node = sources
    tree = scores + b * by, parents + b * above, depths + b * below
    return (*tree, nodes, stop, hit, drafted, logits + b * row + stop * node, size, token)


def sources(outcome: Outcome) -> tuple[int, ...]:
    """Where the scores, parents, depths and logits of a batch are, and the bytes of their rows."""
    _, nodes, size = outcome.scored.shape
    scores, parents, depths = _tree(outcome.tree)
    (logits, row, node), (tree, by) = _place(outcome.scored), _place(scores)
    above, below = ((0, 0) if part is None else _place(part) for part in (parents, depths))
    places = tree, above[0], below[0], logits, nodes, size
    return *places, by, above[1], below[1], row, node


def _tree(tree: Tree) -> tuple[Any, Any, Any]:
    """Scores, parents and depths; a chain's are known without."""
    if isinstance(tree, Line):
        return tree.path, None, None
    if isinstance(tree, Grown):
        return tree.path, tree.numbers[1], tree.numbers[2]
    return (tree.scores, None, None) if tree.chain else (tree.scores, tree.parents, tree.depths)


def _place(rows: Any) -> tuple[int, ...]:
    """Where an array or a tensor is, and the bytes from row to row, on each axis but the last."""
    if isinstance(rows, np.ndarray):
        return address(rows, *[0] * (rows.ndim - 1)), *rows.strides[:-1]
    return rows.data_ptr(), *[step * rows.itemsize for step in rows.stride()[:-1]]


def address(rows: Any, *place: int) -> int:
    """Where a row of an array or a tensor is; its numbers stand side by side."""
    if isinstance(rows, np.ndarray):  # its own attributes for this are slow
        return addressof(c_char.from_buffer(rows[place]))
    where = rows.data_ptr()
    for axis, i in enumerate(place):
        if i:  # of one text it is the first: a call less
            where += i * rows.stride(axis) * rows.itemsize
    return where


def stop_logits(outcome: Outcome) -> Tensor:
    """The target's logits [B, V] where each walk stopped."""
    stops = [path[-1] if path else 0 for path in outcome.path]
    return torch.stack([outcome.logits[b, stop] for b, stop in enumerate(stops)]).float()


def target_facts(logits: Array, tokens: list[int]) -> tuple[Array, ...]:
    """What is told of tokens [N] under logits [N, V], an array [N] each."""
    return tuple(np.array(list(map(told, logits, tokens)), np.float32).T)


def told_on_device(rows: Tensor, tokens: list[int]) -> list[Four]:
    """The same of rows [B, V] far from the host: reduced there, and read at once."""
    logs = rows.clamp(min=-1e4).log_softmax(-1)
    best = logs.topk(2, -1).values
    entropy = -(logs.exp() * logs).sum(-1, keepdim=True)
    chosen = logs.gather(1, torch.tensor(tokens, device=logs.device)[:, None])
    read = torch.cat((best, entropy, chosen), 1).tolist()
    return [(top, top - second, spread, bonus) for top, second, spread, bonus in read]
