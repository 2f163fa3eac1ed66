"""Drafting: a token source and a growth become trees. One loop for every plan; no host reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spec_core.drafters.base import Candidates, DraftState, Frontier
from spec_core.growth import Growth, Level
from spec_core.noise import DRAFT, gumbel
from spec_core.tree import NOTHING, Tree

DRAWS = 4096  # more draft slots than any cycle has: keeps the noise of two cycles apart


class Ranker:
    """Orders a drafter's logits; the coupled one adds the noise that the target will add."""

    def __init__(self, temperature: float = 1.0, noise: Tensor | None = None) -> None:
        self.temperature, self.noise = temperature, noise  # noise: [B, depths, V]
        self.count = 1

    def __call__(self, logits: Tensor, depths: Tensor | int) -> Candidates:
        logits = logits.float()
        if self.noise is not None:
            logits = logits / self.temperature + self._rows(depths)
        scores, tokens = logits.log_softmax(-1).topk(self.count, -1)
        return Candidates(tokens, scores)

    def _rows(self, depths: Tensor | int) -> Tensor:
        assert self.noise is not None
        if isinstance(depths, int):
            return self.noise[:, depths : depths + 1]
        return self.noise.gather(1, depths[:, :, None].expand(-1, -1, self.noise.shape[2]))


class Drawer:
    """Draws children without replacement from the draft's own distribution, which it records."""

    def __init__(self, temperature: float, seeds: Tensor, lengths: Tensor) -> None:
        self.temperature, self.seeds, self.lengths = temperature, seeds, lengths  # [B, 1] each
        self.count = 1
        self.distributions: list[Tensor] = []

    def __call__(self, logits: Tensor, depths: Tensor | int) -> Candidates:
        scores = (logits.float() / self.temperature).log_softmax(-1)  # [B, W, V]
        drawn = sum(d.shape[1] for d in self.distributions)
        self.distributions.append(scores.exp())
        slots = torch.arange(drawn, drawn + scores.shape[1], device=scores.device)
        keys = self.lengths * DRAWS + slots
        noise = gumbel(self.seeds.expand_as(keys), keys, scores.shape[2], DRAFT)
        tokens = (scores + noise).topk(self.count, -1).indices  # in the order of the draws
        return Candidates(tokens, scores.gather(-1, tokens))


@dataclass(frozen=True)
class LevelView:
    """What a policy that is asked after each draft level may see."""

    depth: int
    scores: Tensor  # [B, candidates of this level] log path probabilities; -inf: none
    width: int
    pool: list[Tensor] = field(default_factory=list)  # the scores of all levels so far, root first


@dataclass
class _Pool:
    """All candidates so far, level by level; index 0 is the root."""

    tokens: list[Tensor]
    scores: list[Tensor]
    parents: list[Tensor]  # pool index
    slots: list[Tensor]  # the draft slot of the parent
    depths: list[Tensor]
    size: int = 1

    def add(self, tokens: Tensor, scores: Tensor, parents: Tensor, slots: Tensor, depths) -> None:
        self.tokens.append(tokens)
        self.scores.append(scores)
        self.parents.append(parents)
        self.slots.append(slots)
        self.depths.append(depths)
        self.size += tokens.shape[1]


Stop = Callable[[LevelView], Tensor]


def draft(
    state: DraftState, texts: list[list[int]], growth: Growth, rank: Ranker | Drawer, roots: Tensor,
    stop: Stop | None = None,
) -> Tree:  # fmt: skip
    """Grow one tree per text; roots: [B, 1], the last token of each."""
    rank.count = growth.levels[0].children
    candidates = state.start(texts, rank)
    if growth.chain and stop is None:
        return _chain(state, candidates, growth, rank, roots)
    return _Grower(state, growth, rank, roots).grow(candidates, stop)


def _chain(
    state: DraftState, first: Candidates, growth: Growth, rank: Ranker | Drawer, roots: Tensor
) -> Tree:
    """The general case where every level has one candidate: no selection, no pruning."""
    tokens, scores = [roots, first.tokens[:, 0]], [first.scores[:, 0]]
    for depth in range(1, len(growth.levels)):
        found = state.expand(Frontier(tokens[-1], depth, None, slot=depth, chain=True), rank)
        tokens.append(found.tokens[:, 0])
        scores.append(found.scores[:, 0])
    nodes = len(tokens)
    index = torch.arange(nodes, device=roots.device).expand(len(roots), -1)
    path = torch.cat(scores, 1).cumsum(1)
    return Tree(
        tokens=torch.cat(tokens, 1),
        parents=(index - 1).clamp(min=0),
        depths=index,
        scores=torch.cat((path.new_zeros(len(roots), 1), path), 1),
        expanded=torch.where(index < nodes - 1, index, -1),
        depth=nodes - 1,
        chain=True,
        drafts=_distributions(rank),
    )


def _distributions(rank: Ranker | Drawer) -> Tensor | None:
    return torch.cat(rank.distributions, 1) if isinstance(rank, Drawer) else None


class _Grower:
    """Level-by-level growth with selection."""

    def __init__(
        self, state: DraftState, growth: Growth, rank: Ranker | Drawer, roots: Tensor
    ) -> None:
        self.state, self.growth, self.rank, self.device = state, growth, rank, roots.device
        self.batch = len(roots)
        zero = torch.zeros_like(roots)
        self.pool = _Pool([roots], [zero.float()], [zero], [zero], [zero])
        self.expanded = [zero]  # pool indices of the expanded nodes, by draft slot
        self.ancestors = torch.ones(self.batch, 1, 1, dtype=torch.bool, device=self.device)
        self.stopped: Tensor | None = None

    def grow(self, candidates: Candidates, stop: Stop | None) -> Tree:
        """Run the rounds and keep the best nodes."""
        frontier = self.expanded[0]  # pool indices [B, W]
        for depth, level in enumerate(self.growth.levels, start=1):
            scores = self._record(candidates, level, frontier, depth)
            if depth == len(self.growth.levels):
                break
            if stop is not None and self._stop(stop, depth, scores, level):
                break
            frontier, candidates = self._expand(level, self.growth.levels[depth], depth)
        return self._tree()

    def _stop(self, stop: Stop, depth: int, scores: Tensor, level: Level) -> bool:
        """Ask who stops here; True when all have."""
        mask = stop(LevelView(depth, scores, level.width, self.pool.scores)).to(self.device).view(-1, 1)
        self.stopped = mask if self.stopped is None else self.stopped | mask
        return bool(self.stopped.all())

    def _record(self, found: Candidates, level: Level, frontier: Tensor, depth: int) -> Tensor:
        """Put a level's candidates into the pool; those that may not be are nobody's."""
        pool, children = self.pool, found.tokens.shape[2]
        parent_scores = torch.cat(pool.scores, 1).gather(1, frontier)
        log_probability = found.scores
        scores = (log_probability + parent_scores[:, :, None]).flatten(1)
        if level.allowed is not None:
            scores = scores.masked_fill(~level.allowed, -torch.inf)
        if self.growth.thresholds is not None:
            value = scores if isinstance(self.rank, Ranker) else _reach(found, parent_scores)
            scores = scores.masked_fill(value < self.growth.thresholds, -torch.inf)
        if self.stopped is not None:
            scores = scores.masked_fill(self.stopped, -torch.inf)
        slot = sum(e.shape[1] for e in self.expanded) - frontier.shape[1]
        slots = torch.arange(slot, slot + frontier.shape[1], device=self.device)
        depths = torch.cat(pool.depths, 1).gather(1, frontier) + 1
        pool.add(
            found.tokens.flatten(1),
            scores,
            frontier.repeat_interleave(children, 1),
            slots.repeat_interleave(children).expand(self.batch, -1),
            depths.repeat_interleave(children, 1),
        )
        return scores

    def _choose(self, level: Level, width: int) -> Tensor:
        """Pool indices [B, width] of the nodes to expand next."""
        start = self.pool.size - self.pool.tokens[-1].shape[1]
        newest = self.pool.scores[-1]
        index = newest.topk(min(width, newest.shape[1]), 1).indices + start
        if index.shape[1] < width:  # best-first rounds may be wider than the newest level
            index = torch.cat((index, index[:, :1].expand(-1, width - index.shape[1])), 1)
        if level.chosen is not None:
            index = torch.where(level.chosen >= 0, level.chosen + start, index)
        if self.growth.best is not None:
            scores = torch.cat(self.pool.scores, 1)
            scores = scores.scatter(1, torch.cat(self.expanded, 1), -torch.inf)
            index = torch.where(self.growth.best[:, None], scores.topk(width, 1).indices, index)
        return index

    def _expand(self, level: Level, following: Level, depth: int) -> tuple[Tensor, Candidates]:
        pool, width = self.pool, following.width
        index = self._choose(level, width)
        slot = self.ancestors.shape[1]
        parent = torch.cat(pool.slots, 1).gather(1, index)  # [B, W] draft slots
        rows = self.ancestors.gather(1, parent[:, :, None].expand(-1, -1, slot))
        own = torch.eye(width, dtype=torch.bool, device=self.device).expand(self.batch, -1, -1)
        rows = torch.cat((rows, own), 2)
        padding = self.ancestors.new_zeros(self.batch, slot, width)
        self.ancestors = torch.cat((torch.cat((self.ancestors, padding), 2), rows), 1)
        self.expanded.append(index)
        depths = depth if self.growth.best is None else torch.cat(pool.depths, 1).gather(1, index)
        tokens = torch.cat(pool.tokens, 1).gather(1, index)
        self.rank.count = following.children
        return index, self.state.expand(Frontier(tokens, depths, rows, slot), self.rank)

    def _tree(self) -> Tree:
        """The best nodes within budget, parents first; drawn nodes keep the order of their draws."""
        pool, growth = self.pool, self.growth
        tokens, scores = torch.cat(pool.tokens, 1), torch.cat(pool.scores, 1)
        nodes = min(growth.nodes, pool.size)
        key = scores if isinstance(self.rank, Ranker) else scores.isfinite().float()
        order = key.sort(dim=1, descending=True, stable=True).indices  # [B, pool]
        rank = torch.empty_like(order)
        rank.scatter_(1, order, torch.arange(pool.size, device=self.device).expand_as(order))
        order = order[:, :nodes]
        scores = scores.gather(1, order)
        budgets = torch.tensor(growth.budgets, device=self.device)[:, None]
        alive = scores.isfinite() & (torch.arange(nodes, device=self.device) < budgets)
        parents = rank.gather(1, torch.cat(pool.parents, 1).gather(1, order))
        expanded = torch.full((self.batch, pool.size), -1, device=self.device)
        held = torch.cat(self.expanded, 1)
        expanded.scatter_(1, held, torch.arange(held.shape[1], device=self.device).expand_as(held))
        depths = torch.cat(pool.depths, 1).gather(1, order)
        return Tree(
            tokens=tokens.gather(1, order).masked_fill(~alive, NOTHING),
            parents=parents.masked_fill(~alive, 0),
            depths=depths.masked_fill(~alive, 0),
            scores=scores.masked_fill(~alive, -torch.inf),
            expanded=expanded.gather(1, order).masked_fill(~alive, -1),
            depth=min(len(growth.levels), nodes - 1),
            drafts=_distributions(self.rank),
        )


def _reach(found: Candidates, parent_scores: Tensor) -> Tensor:
    """Log of the chance that each draw is tried: its parent is reached, its elder siblings refused."""
    probability = found.scores.exp()
    left = 1 - (probability.cumsum(2) - probability)
    return (left.clamp(min=0).log() + parent_scores[:, :, None]).flatten(1)
