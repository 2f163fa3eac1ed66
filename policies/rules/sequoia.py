"""Sequoia's static trees, and the measurement that they need. Knows costs, no models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.rules.costs import Costs, costs_of
from spec_core.plan import AUTOREGRESSIVE, Plan, Template
from spec_core.policy import Fixed
from spec_core.tree import NOTHING

if TYPE_CHECKING:
    from spec_core.session import Outcome


class Growths:
    """The dynamic programme: the best shapes by node count, depth and next child rank.

    gain[d][r][n] is the largest expected number of accepted nodes among n that hang under an
    accepted node as its children of rank r and above, with d levels left; ranks are not skipped.
    """

    def __init__(self, acceptance: Sequence[float], nodes: int, depth: int) -> None:
        self.rates = [float(rate) for rate in acceptance]
        assert self.rates and all(0 <= rate <= 1 for rate in self.rates), "rates are probabilities"
        ranks = len(self.rates)
        self.gain = np.zeros((depth + 1, ranks + 1, nodes + 1))
        self.size = np.zeros((depth + 1, ranks, nodes + 1), np.int64)  # of child r's subtree
        for d in range(1, depth + 1):
            for r in reversed(range(ranks)):
                self._fill(d, r, nodes)

    def _fill(self, d: int, r: int, nodes: int) -> None:
        """Child r's subtree gets m of n nodes, the younger siblings the rest; m = 0: none of it."""
        own = self.rates[r] * (1 + self.gain[d - 1, 0])  # by m - 1
        for n in range(1, nodes + 1):
            choices = own[:n] + self.gain[d, r + 1, n - 1 :: -1][:n]
            best = int(choices.argmax())
            if choices[best] > 0:
                self.gain[d, r, n], self.size[d, r, n] = choices[best], best + 1

    def shape(self, nodes: int, depth: int) -> Template:
        """The best tree with this many drafted nodes, or fewer where more would gain nothing."""
        parents, ranks = list[int](), list[int]()
        todo = [(0, depth, 0, nodes)]  # parent, levels left, rank, nodes
        while todo:
            parent, d, r, n = todo.pop()
            m = int(self.size[d, r, n]) if d and r < len(self.rates) else 0
            if m:
                parents.append(parent)
                ranks.append(r)
                todo += [(parent, d, r + 1, n - m), (len(parents), d - 1, 0, m - 1)]
        return Template(tuple(parents), tuple(ranks))


def best_shape(
    acceptance: Sequence[float], budget: int, depth: int, costs: Costs | None = None
) -> Template:
    """The tree of most expected tokens per second; without costs, of most expected tokens."""
    growths = Growths(acceptance, budget - 1, depth)
    tokens = 1 + growths.gain[:, 0]  # [depth + 1, budget] with the bonus
    seconds = np.ones_like(tokens)
    if costs is not None:
        levels = np.arange(depth + 1)[:, None] * costs.draft_seconds(1)
        seconds = levels + [costs.verify_seconds(n) for n in range(1, budget + 1)]
    rate = tokens / np.maximum(seconds, 1e-12)
    d, nodes = np.unravel_index(int(rate.argmax()), rate.shape)
    return growths.shape(int(nodes), int(d))


def sequoia(
    acceptance: Sequence[float] = (0.7, 0.1, 0.04, 0.02), budget: int = 64, depth: int = 8,
    costs: Costs | dict[str, Any] | None = None,
) -> Fixed:  # fmt: skip
    """Sequoia (arXiv 2402.12374): the static tree that its dynamic programme finds.

    acceptance: P(child of rank r is accepted | its parent was), measured by `RankCounter`; the
    default is a stand-in. It maximises expected tokens / (depth x draft + verify(nodes)).
    """
    shape = best_shape(acceptance, budget, depth, None if costs is None else costs_of(costs))
    return Fixed(Plan.of(shape) if shape.parents else AUTOREGRESSIVE)


class RankCounter:
    """Counts how often the child of each rank was accepted; feed it outcomes of a wide beam."""

    def __init__(self, ranks: int = 8) -> None:
        self.tried, self.accepted = [0] * ranks, [0] * ranks

    def __call__(self, outcome: Outcome) -> None:
        """Count one cycle: the children of every node on the accepted path, and of the root."""
        parents, tokens = outcome.tree.parents.tolist(), outcome.tree.tokens.tolist()
        for row, path in enumerate(outcome.path):
            children: dict[int, list[int]] = {}
            for node in range(1, len(parents[row])):
                if tokens[row][node] != NOTHING:
                    children.setdefault(parents[row][node], []).append(node)
            for node, chosen in zip([0, *path], [*path, -1], strict=True):
                for rank, child in enumerate(children.get(node, [])[: len(self.tried)]):
                    self.tried[rank] += 1
                    self.accepted[rank] += child == chosen

    @property
    def rates(self) -> list[float]:
        """P(rank accepted | parent accepted), as `sequoia` wants it; ranks never tried are left."""
        return [a / t for a, t in zip(self.accepted, self.tried, strict=True) if t]
