"""Recursive rejection without replacement (SpecInfer, Sequoia, DySpec): for papers that need it.

Children are draws from the draft's distribution q in order; each is accepted with probability
min(1, r / q), where r starts as the target's distribution p and becomes norm(max(r - q, 0)) after a
refusal, while q loses the refused token. A drawn node that is dropped breaks this: none ever is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spec_core.noise import ACCEPT, RESIDUAL, gumbel, uniform
from spec_core.ranking import Drawer, Ranker
from spec_core.tree import NOTHING, Nodes, Tree
from spec_core.verifiers.base import Chance, Verdict
from spec_core.verifiers.coupled import Coupled


class Rejection:
    """Exact in distribution, not in text: what is drawn depends on what was drafted."""

    sampled = True

    def __init__(self) -> None:
        self.greedy = Coupled()

    def prepare(self, chance: Chance, depth: int) -> None:
        """Nothing: what it uploads depends on the walk."""

    def ranker(self, chance: Chance, depth: int) -> Ranker | Drawer:
        """Draw without replacement at the target's temperature."""
        if chance.sampling.greedy:
            return self.greedy.ranker(chance, depth)
        seeds, lengths = chance.column(chance.seeds), chance.column(chance.lengths)
        return Drawer(chance.sampling.temperature, seeds, lengths)

    def accept(self, logits: Any, tree: Tree, chance: Chance) -> Verdict:
        """Walk each tree from its root."""
        if chance.sampling.greedy:
            return self.greedy.accept(logits, tree, chance)
        logits = torch.as_tensor(logits)
        nodes = tree.read(logits.amax(-1).isfinite())
        target = chance.sampling.shape(logits).softmax(-1)
        walks = [_walk(b, target[b], own, tree.drafts, chance) for b, own in enumerate(nodes)]
        paths = [path for path, _ in walks]
        finite = [len(tokens) > len(path) for path, tokens in walks]
        slots = [[n.slots[node] for node in path] for n, path in zip(nodes, paths, strict=True)]
        drafted = [n.count - 1 for n in nodes]
        return Verdict(paths, slots, [tokens for _, tokens in walks], drafted, finite)


def _walk(
    row: int, target: Tensor, nodes: Nodes, drafts: Tensor | None, chance: Chance
) -> tuple[list[int], list[int]]:
    """Accepted nodes, and tokens with the bonus; target: [N, V], in extra whether it is finite."""
    node, path, tokens = 0, list[int](), list[int]()
    held = nodes.tokens
    while nodes.extra[node]:
        children = [
            n for n in range(1, len(held)) if nodes.parents[n] == node and held[n] != NOTHING
        ]
        draft = drafts[row, nodes.slots[node]] if children and drafts is not None else None
        position = chance.lengths[row] + len(path)
        residual, chosen = _try(
            target[node], draft, [held[n] for n in children], row, position, chance
        )
        if chosen is None:
            return path, [*tokens, _sample(residual, row, position, chance)]
        node = children[chosen]
        path.append(node)
        tokens.append(held[node])
    return path, tokens


def _try(
    residual: Tensor,
    draft: Tensor | None,
    children: list[int],
    row: int,
    position: int,
    chance: Chance,
) -> tuple[Tensor, int | None]:
    """Offer the children in the order they were drawn; the residual, and which was accepted."""
    if draft is None:
        return residual, None
    seed, at = chance.column(chance.seeds)[row], chance.column([position])[0]
    coins = uniform(seed, at, len(children), ACCEPT)[0].tolist()
    for rank, (token, coin) in enumerate(zip(children, coins, strict=True)):
        if coin * float(draft[token]) < float(residual[token]):
            return residual, rank
        rest = (residual - draft).clamp(min=0)
        if float(rest.sum()) > 0:  # 0 only where r equals q to rounding
            residual = rest / rest.sum()
        draft = draft.clone()
        draft[token] = 0
        draft = draft / draft.sum().clamp(min=1e-30)
    return residual, None


def _sample(distribution: Tensor, row: int, position: int, chance: Chance) -> int:
    seed, at = chance.column(chance.seeds)[row], chance.column([position])[0]
    noise = gumbel(seed, at, len(distribution), RESIDUAL)[0]
    return int((distribution.log() + noise).argmax())
