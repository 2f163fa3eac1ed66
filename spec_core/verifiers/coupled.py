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
    matched = tree.tokens == picks.gather(1, tree.parents)  # [B, N]
    matched[:, 0] = True
    ancestors = tree.ancestors
    reached = ((matched[:, None] & ancestors) == ancestors).all(2)
    accepted, leaf = torch.where(reached, tree.depths, -1).max(1)
    batch, nodes = picks.shape
    rows = ancestors.expand(batch, -1, -1)
    on_path = rows.gather(1, leaf[:, None, None].expand(-1, 1, nodes))[:, 0]
    where = torch.where(on_path, tree.depths, tree.depth + 1)
    path = torch.zeros(batch, tree.depth + 2, dtype=torch.int64, device=picks.device)
    path.scatter_(1, where, torch.arange(nodes, device=picks.device).expand(batch, -1))
    tokens = picks.gather(1, path)
    host = torch.cat((accepted[:, None], finite[:, None], path, tokens), 1).tolist()
    width = tree.depth + 2
    counts = [row[0] for row in host]
    return Verdict(
        accepted=counts,
        tokens=[row[2 + width : 3 + width + n] for row, n in zip(host, counts, strict=True)],
        path=[row[3 : 3 + n] for row, n in zip(host, counts, strict=True)],
        finite=[bool(row[1]) for row in host],
    )
