"""The walk with noise keyed by (seed, position): the text is a function of prompt and seed alone.

At every node the target's token is argmax(logits / T + noise at that position), greedy at T = 0;
the walk goes on while a child carries that token. Whatever was drafted, the text is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spec_core.drafting import Ranker
from spec_core.tree import Tree
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
        largest, picks = logits.max(-1)  # [B, N]; a NaN is the largest of its row
        if not chance.sampling.greedy:
            noise = chance.target(tree.depth + 1)
            if tree.nodes > 1:
                index = tree.depths[:, :, None].expand(-1, -1, noise.shape[2])
                noise = noise.gather(1, index)
            picks = (chance.sampling.shape(logits) + noise).argmax(-1)
        return follow(picks, tree, largest.isfinite().all(1))


def follow(picks: Tensor, tree: Tree, finite: Tensor) -> Verdict:
    """The longest path from the root whose every node is its parent's pick, in one host read."""
    nodes = tree.nodes
    host = torch.cat((picks, tree.tokens, tree.parents, finite[:, None]), 1).tolist()
    walks = [_walk(r[:nodes], r[nodes : 2 * nodes], r[2 * nodes : -1]) for r in host]
    return Verdict(
        accepted=[len(path) for path, _ in walks],
        tokens=[tokens for _, tokens in walks],
        path=[path for path, _ in walks],
        finite=[bool(row[-1]) for row in host],
    )


def _walk(picks: list[int], tokens: list[int], parents: list[int]) -> tuple[list[int], list[int]]:
    """Accepted nodes, and their tokens with the bonus."""
    child = {(parents[n], tokens[n]): n for n in range(1, len(tokens))}
    node, path = 0, list[int]()
    while (node, picks[node]) in child:
        node = child[node, picks[node]]
        path.append(node)
    return path, [*(tokens[n] for n in path), picks[node]]
