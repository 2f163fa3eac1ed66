"""The drafted tokens of a batch: everything else about a tree is derived from `parents`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_core.tensors import causal, numbers

NOTHING = -1  # the token of a padding node: no target ever picks it, compiled code reads it


def ancestors_of(parents: Tensor, depth: int) -> Tensor:
    """[B, N, N]: whether j is on the path from the root to i; depth bounds the tree's."""
    nodes = parents.shape[1]
    seen = torch.eye(nodes, dtype=torch.bool, device=parents.device).expand(len(parents), -1, -1)
    jump, reach = parents, 1
    while reach <= depth:  # pointer doubling: after k rounds every path of 2^k steps is known
        index = jump[:, :, None].expand(-1, -1, nodes)
        seen = seen | seen.gather(1, index)
        jump, reach = jump.gather(1, jump), 2 * reach
    return seen


def _seen(parents: np.ndarray) -> np.ndarray:
    """`ancestors_of` on the host, where a few small steps cost less than a call of torch."""
    seen = np.zeros((*parents.shape, parents.shape[1]), bool)
    for mine, row in zip(seen, parents.tolist(), strict=True):
        for node, parent in enumerate(row):
            mine[node] = mine[parent]
            mine[node, node] = True
    return seen


@lru_cache(maxsize=1024)
def _chains(
    batch: int, nodes: int, held: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Parents, depths and `expanded` [B, N] where the drafter holds the first few nodes."""
    depths = torch.arange(nodes, device=device).expand(batch, -1)
    return (depths - 1).clamp(min=0), depths, torch.where(depths < held, depths, -1)


@dataclass(frozen=True)
class Nodes:
    """One sequence's tree as host numbers, and what was read along with it."""

    tokens: list[int]
    parents: list[int]
    slots: list[int]  # draft slots, -1 where the drafter holds none
    extra: list[int]

    @property
    def count(self) -> int:
        """Nodes, the root included, padding not."""
        return len(self.tokens) - self.tokens.count(NOTHING)


@dataclass
class Tree:
    """Node 0 is the last committed token; parents precede children; siblings differ."""

    tokens: Tensor  # [B, N] int64; NOTHING where a sequence has fewer nodes
    parents: Tensor  # [B, N] int64; the root is its own parent
    depths: Tensor  # [B, N] int64
    scores: Tensor  # [B, N] log path probability under the draft; -inf where there is no node
    expanded: Tensor  # [B, N] int64: the draft's slot for the node after the root's, or -1
    depth: int  # bound on depths
    chain: bool = False  # every node hangs under the one before, in every sequence
    drafts: Tensor | None = None  # [B, E, V] draft distributions by slot, where tokens were drawn
    seen: Tensor | None = None  # the ancestors, where they are known

    def __post_init__(self) -> None:
        assert self.tokens.shape == self.parents.shape == self.depths.shape == self.scores.shape
        assert self.depth < max(2, self.tokens.shape[1])

    @property
    def nodes(self) -> int:
        """Nodes per sequence, the root and padding included."""
        return self.tokens.shape[1]

    @property
    def counts(self) -> list[int]:
        """Nodes of each sequence, the root included, padding not."""
        if self.chain:
            return [self.nodes] * len(self.tokens)
        if self.tokens.is_cpu:
            return (self.tokens.numpy() != NOTHING).sum(1).tolist()
        return (self.tokens != NOTHING).sum(1).tolist()

    @property
    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [B, N] in doubles, and depths, side by side in the host's memory."""
        scores = self.scores.cpu().numpy().astype(np.float64)
        return scores, np.ascontiguousarray(self.depths.cpu().numpy())

    @property
    def ancestors(self) -> Tensor:
        """[B or 1, N, N] bool: the attention mask within the tree."""
        if self.chain or self.nodes == 1:
            return causal(self.nodes, self.tokens.device)
        if self.seen is not None:
            return self.seen
        if self.parents.is_cpu:
            return torch.from_numpy(_seen(self.parents.numpy()))
        return ancestors_of(self.parents, self.depth)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Tokens, parents (None: those of a chain) and draft slots, where they are at hand."""
        parents = None if self.chain else self.parents.numpy()
        return self.tokens.numpy(), parents, self.expanded.numpy()

    def read(self, *extra: Any) -> list[Nodes]:
        """All sequences' nodes and extra numbers [B, any], on the CPU also as arrays."""
        read = numbers((self.tokens, self.parents, self.expanded, *extra))
        return [
            Nodes(tokens, parents, slots, [n for part in rest for n in part])
            for tokens, parents, slots, *rest in zip(*read, strict=True)
        ]

    @classmethod
    def roots(cls, tokens: Tensor) -> Tree:
        """Trees of one node each: the plain autoregressive step. tokens: [B, 1]."""
        return cls.line(tokens, torch.zeros_like(tokens, dtype=torch.float), held=0)

    @classmethod
    def line(cls, tokens: Tensor, scores: Tensor, held: int, drafts: Tensor | None = None) -> Tree:
        """Chains, of whose nodes [B, N] the drafter holds the first few."""
        batch, nodes = tokens.shape
        parents, depths, expanded = _chains(batch, nodes, held, tokens.device)
        return cls(tokens, parents, depths, scores, expanded, nodes - 1, chain=True, drafts=drafts)

    @classmethod
    def thinned(cls, tokens: Tensor, scores: Tensor, held: int) -> Tree:
        """Chains [B, N] of several lengths; behind its end each has NOTHING."""
        batch, nodes = tokens.shape
        parents, depths, expanded = _chains(batch, nodes, held, tokens.device)
        dead = tokens == NOTHING
        seen = causal(nodes, tokens.device) & ~dead[:, :, None]
        seen[:, :, 0], seen.diagonal(dim1=1, dim2=2)[:] = True, True
        return cls(
            tokens, parents.masked_fill(dead, 0), depths.masked_fill(dead, 1), scores,
            expanded.masked_fill(dead, -1), nodes - 1, seen=seen,
        )  # fmt: skip

    def first(self, nodes: int) -> Tree:
        """The same trees with fewer nodes each; parents come first, so what is left is a tree."""
        if nodes >= self.nodes:
            return self
        names = ("tokens", "parents", "depths", "scores", "expanded")
        parts = {name: getattr(self, name)[:, :nodes] for name in names}
        depth = min(self.depth, nodes - 1)
        return Tree(**parts, depth=depth, chain=self.chain, drafts=self.drafts)

    def cut(self, budgets: list[int]) -> Tree:
        """Each sequence's best nodes up to its budget, the root included."""
        assert len(budgets) == len(self.tokens) and min(budgets) >= 1
        if min(budgets) >= self.nodes:
            return self
        assert self.drafts is None, "a drawn node may not be dropped"
        tree = self.first(min(max(budgets), self.nodes))
        if min(budgets) >= tree.nodes:
            return tree
        index = torch.arange(tree.nodes, device=self.tokens.device)
        dead = index >= torch.tensor(budgets, device=index.device)[:, None]
        return Tree(
            tree.tokens.masked_fill(dead, NOTHING), tree.parents.masked_fill(dead, 0),
            tree.depths.masked_fill(dead, 0), tree.scores.masked_fill(dead, -torch.inf),
            tree.expanded.masked_fill(dead, -1), depth=tree.depth,
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _slots(nodes: int, held: int) -> np.ndarray:
    """`expanded` [1, N] where the drafter holds the first few nodes."""
    index = np.arange(nodes)
    return np.where(index < held, index, -1)[None]


@lru_cache(maxsize=256)
def _depths(nodes: int) -> np.ndarray:
    return np.arange(nodes)[None]


class Held(Tree):
    """One text's tree in the host's memory: its tensors are made when somebody wants them."""

    drafts = seen = None

    def __getattr__(self, name: str) -> Tensor:
        if name not in ("tokens", "scores", "parents", "depths", "expanded"):
            raise AttributeError(name)
        vars(self).update(vars(self.made()))
        return vars(self)[name]

    def made(self) -> Tree:
        """The same with tensors."""
        raise NotImplementedError


class Grown(Held):
    """Of any shape, without padding."""

    chain = False

    def __init__(self, numbers: np.ndarray, scores: np.ndarray, sees: np.ndarray, depth: int):
        """numbers [4, 1, N]: tokens, parents, depths, expanded; sees: ancestors [1, N, N]."""
        self.numbers, self.path, self.sees, self.depth = numbers, scores, sees, depth

    def made(self) -> Tree:
        tokens, parents, depths, expanded = map(torch.from_numpy, self.numbers)
        scores, seen = torch.from_numpy(self.path), torch.from_numpy(self.sees)
        return Tree(tokens, parents, depths, scores, expanded, self.depth, seen=seen)

    @property
    def nodes(self) -> int:
        """The root included."""
        return self.path.shape[1]

    @property
    def counts(self) -> list[int]:
        """All of them."""
        return [self.nodes]

    @property
    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """As they are."""
        return self.path.astype(np.float64), self.numbers[2]

    @property
    def ancestors(self) -> Tensor:
        """As they are."""
        return torch.from_numpy(self.sees)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """As they are."""
        return self.numbers[0], self.numbers[1], self.numbers[3]


class Line(Held):
    """A chain."""

    chain = True

    def __init__(self, tokens: list[int], scores: list[float], held: int) -> None:
        self.row, self.scored = np.array([tokens]), scores  # [1, N], N
        self.held, self.depth = held, len(tokens) - 1

    @cached_property
    def path(self) -> np.ndarray:
        """The scores [1, N]."""
        return np.array([self.scored], np.float32)

    def made(self) -> Tree:
        return Tree.line(torch.from_numpy(self.row), torch.from_numpy(self.path), self.held)

    @property
    def nodes(self) -> int:
        """The root included."""
        return self.depth + 1

    @property
    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """As they are."""
        return self.path.astype(np.float64), _depths(self.nodes)

    def first(self, nodes: int) -> Tree:
        """A shorter chain."""
        if nodes >= self.nodes:
            return self
        return Line(self.row[0, :nodes].tolist(), self.scored[:nodes], min(self.held, nodes))

    def cut(self, budgets: list[int]) -> Tree:
        """The same: there is one budget."""
        assert len(budgets) == 1 and budgets[0] >= 1
        return self.first(budgets[0])

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """As they are."""
        return self.row, None, _slots(self.nodes, self.held)
