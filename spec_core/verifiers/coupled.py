"""The walk with noise keyed by (seed, position): the text is a function of prompt and seed alone.

At every node the target's token is argmax(logits / T + noise at that position), greedy at T = 0;
the walk goes on while a child carries that token. Whatever was drafted, the text is the same.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from spec_core.ranking import Ranker
from spec_core.rows import rows
from spec_core.tree import Nodes, Tree
from spec_core.verifiers.base import Chance, Verdict


class Coupled:
    """The default verifier; `coupled` adds the target's noise to the draft's ranking as well."""

    sampled = False

    def __init__(self, coupled: bool = True) -> None:
        self.coupled = coupled

    def ranker(self, chance: Chance, depth: int) -> Ranker:
        """Rank by the draft's probability, after the noise where coupled."""
        if chance.sampling.greedy:
            return Ranker()
        if not self.coupled:
            return Ranker(chance.sampling.temperature)
        return Ranker(chance.sampling.temperature, chance.target(depth + 1))

    def accept(self, logits: Tensor, tree: Tree, chance: Chance) -> Verdict:
        """Pick the target's token at every node and follow the picks from the root."""
        found = rows(logits.is_cpu)
        picks, finite = found.largest(logits.float())
        if not chance.sampling.greedy:
            noise = chance.target(tree.depth + 1)
            if not tree.chain:
                index = tree.depths[:, :, None].expand(-1, -1, noise.shape[2])
                noise = noise.gather(1, index)
            picks, _ = found.largest(chance.sampling.shape(logits) + noise)
        return follow(picks, finite, tree)


def follow(picks: Any, finite: Any, tree: Tree) -> Verdict:
    """The longest path from the root whose every node is its parent's pick."""
    nodes = tree.read(picks, finite)
    paths = [_walk(n) for n in nodes]
    ends = [path[-1] if path else 0 for path in paths]
    return Verdict(
        path=paths,
        tokens=[
            [*(n.tokens[node] for node in path), n.extra[end]]
            for n, path, end in zip(nodes, paths, ends, strict=True)
        ],
        nodes=nodes,
        finite=[bool(n.extra[-1]) for n in nodes],
    )


def _walk(nodes: Nodes) -> list[int]:
    """Accepted nodes, from the root down."""
    edges = zip(nodes.parents, nodes.tokens, strict=True)
    child = {edge: node for node, edge in enumerate(edges) if node > 0}
    node, path = 0, list[int]()
    while (node, nodes.extra[node]) in child:
        node = child[node, nodes.extra[node]]
        path.append(node)
    return path
