"""Trees that grow level by level with selection: the general case. No host reads on a GPU."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from spec_core.doubt import Doubt
from spec_core.drafters.base import Candidates, DraftState, Frontier
from spec_core.growth import Growth, Level
from spec_core.level import Drafting, LevelView, Scores, Stops
from spec_core.ranking import Drawer, Ranker
from spec_core.tree import NOTHING, Tree


def distributions(rank: Ranker | Drawer) -> Tensor | None:
    """What tokens were drawn from, by draft slot."""
    return torch.cat(rank.distributions, 1) if isinstance(rank, Drawer) else None


def padded(tokens: Tensor, reached: Tensor) -> Tensor:
    """Tokens without those that no path reaches, where to leave them out spares work."""
    return tokens.masked_fill(reached == -torch.inf, NOTHING) if tokens.is_cpu else tokens


class Grower:
    """Level-by-level growth with selection: the newest level's best are expanded next."""

    def __init__(
        self, state: DraftState, growth: Growth, rank: Ranker | Drawer, roots: Tensor
    ) -> None:
        self.state, self.growth, self.rank = state, growth, rank
        self.device, self.batch = roots.device, len(roots)
        zero = torch.zeros_like(roots)
        self.tokens, self.scores = [roots], [zero.float()]  # of all candidates, level by level
        self.expanded = [zero]  # pool indices of the expanded nodes, by draft slot
        self.reached = self.scores[0]  # [B, W] scores of the frontier
        self.rows = torch.ones(self.batch, 1, 1, dtype=torch.bool, device=self.device)
        self.size, self.slot = 1, 0  # candidates so far; the frontier's first draft slot
        self.stopped: Tensor | None = None
        self.numbers: list[Scores] = [[[0.0]] * self.batch]  # the pool on the host, if asked
        self.logs: Any = None  # what the newest level was taken from

    def grow(self, candidates: Candidates, doubt: Doubt | None) -> Drafting:
        """Run the rounds and keep the best nodes."""
        for depth, level in enumerate(self.growth.levels, start=1):
            self._record(candidates, level)
            if depth == len(self.growth.levels):
                break
            if doubt is not None and (yield from self._settle(depth, level, doubt)):
                break
            if doubt is None and self._nothing_left():
                break
            candidates = self._expand(level, self.growth.levels[depth], depth)
        return self._tree()

    def _record(self, found: Candidates, level: Level) -> None:
        """Put a level's candidates into the pool; those that may not be are nobody's."""
        self.logs = self.rank.logs(found)
        scores = (found.scores + self.reached[:, :, None]).flatten(1)
        scores = scores.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        if level.allowed is not None:
            scores = scores.masked_fill(~level.allowed, -torch.inf)
        if self.growth.thresholds is not None:
            value = scores if isinstance(self.rank, Ranker) else _reach(found, self.reached)
            scores = scores.masked_fill(value < self.growth.thresholds, -torch.inf)
        if self.stopped is not None:
            scores = scores.masked_fill(self.stopped, -torch.inf)
        self.size += scores.shape[1]
        self.tokens.append(found.tokens.flatten(1))
        self.scores.append(scores)

    def _view(self, depth: int, level: Level, asked: list[bool]) -> LevelView:
        pool, numbers = [*self.scores], [*self.numbers]
        logs = torch.as_tensor(self.logs)
        return LevelView(depth, pool[-1], level.width, pool, logs, numbers, asked)

    def _settle(self, depth: int, level: Level, doubt: Doubt) -> Generator[LevelView, Stops, bool]:
        """Find who stops, asking where somebody is in doubt; whether nobody drafts on."""
        self.numbers.append(self.scores[-1].tolist())
        best = [max(scores) for scores in self.numbers[-1]]
        growing = [
            most > depth and now > -torch.inf
            for most, now in zip(self.growth.depths, best, strict=True)
        ]
        asked = [more and doubt.asks(now) for more, now in zip(growing, best, strict=True)]
        going = [more and not doubt.stops(now) for more, now in zip(growing, best, strict=True)]
        if any(asked):
            stops = yield self._view(depth, level, asked)
            said = stops.tolist() if isinstance(stops, Tensor) else stops
            going = [g and not (a and s) for g, a, s in zip(going, asked, said, strict=True)]
        ended = [more and not on for more, on in zip(growing, going, strict=True)]
        if any(ended):
            mask = torch.tensor(ended, device=self.device).view(-1, 1)
            self.stopped = mask if self.stopped is None else self.stopped | mask
        return not any(going)

    def _nothing_left(self) -> bool:
        """Whether no candidate passed, where a host read is free."""
        passing = self.growth.thresholds is None and not self.state.misses
        if passing or self.device.type != "cpu":
            return False
        return not bool(self.scores[-1].isfinite().any())

    def _choose(self, level: Level, width: int) -> Tensor:
        """The newest candidates [B, width] to expand next, counted within their level."""
        index = _best(self.scores[-1], width)[1]
        return (
            index if level.chosen is None else torch.where(level.chosen >= 0, level.chosen, index)
        )

    def _expand(self, level: Level, following: Level, depth: int) -> Candidates:
        newest, width = self.scores[-1], following.width
        index = self._choose(level, min(width, newest.shape[1]))
        self.reached = newest.gather(1, index)
        tokens = padded(self.tokens[-1].gather(1, index), self.reached)
        rows = _take_rows(self.rows, index // level.children)  # the parents'
        self.rows = _with_selves(rows, width)
        self.slot += level.width
        self.expanded.append(index + (self.size - newest.shape[1]))
        self.rank.ask(following.children)
        return self.state.expand(Frontier(tokens, depth, self.rows, self.slot), self.rank)

    def _tree(self) -> Tree:
        """The best nodes within budget, parents first; drawn nodes keep their draws' order."""
        tokens, scores = torch.cat(self.tokens, 1), torch.cat(self.scores, 1)
        nodes = min(self.growth.nodes, self.size)
        key = scores if isinstance(self.rank, Ranker) else scores.isfinite().float()
        whole = key.sort(dim=1, descending=True, stable=True).indices  # [B, pool]
        order, index = whole[:, :nodes], torch.arange(self.size, device=self.device)
        held = torch.cat(self.expanded, 1)  # [B, E] pool indices
        place = torch.empty_like(whole).scatter_(1, whole, index.expand_as(whole))
        slots = self.growth.slots.expand(self.batch, -1).gather(1, order)
        parents = place.gather(1, held.gather(1, slots))
        expanded = torch.full_like(whole, -1)
        expanded.scatter_(1, held, index[: held.shape[1]].expand_as(held))
        expanded[:, 0] = 0  # the root, which also stands for padding
        scores = scores.gather(1, order)
        dead = ~scores.isfinite() | (index[:nodes] >= self.growth.budget)
        parents = parents.masked_fill(dead, 0)
        return Tree(
            tokens=tokens.gather(1, order).masked_fill(dead, NOTHING),
            parents=parents,
            depths=_depths(parents, min(len(self.growth.levels), nodes - 1)),
            scores=scores.masked_fill(dead, -torch.inf),
            expanded=expanded.gather(1, order).masked_fill(dead, -1),
            depth=min(len(self.growth.levels), nodes - 1),
            drafts=distributions(self.rank),
        )


class BestFirst(Grower):
    """Where some sequence expands its best unexpanded nodes, of whatever level."""

    def __init__(
        self, state: DraftState, growth: Growth, rank: Ranker | Drawer, roots: Tensor
    ) -> None:
        super().__init__(state, growth, rank, roots)
        self.depths = torch.zeros_like(roots)  # of the expanded, by draft slot
        self.all_rows = self.rows  # [B, E, E] what each expanded node sees

    def _expand(self, level: Level, following: Level, depth: int) -> Candidates:
        assert self.growth.best is not None
        width, newest = following.width, self.scores[-1]
        start = self.size - newest.shape[1]
        near = self._choose(level, min(width, newest.shape[1])) + start
        if near.shape[1] < width:  # best-first rounds may be wider than the newest level
            near = torch.cat((near, near[:, :1].expand(-1, width - near.shape[1])), 1)
        scores = torch.cat(self.scores, 1)
        open_scores = scores.scatter(1, torch.cat(self.expanded, 1), -torch.inf)
        (values, best), mine = _best(open_scores, width), self.growth.best[:, None]
        index = torch.where(mine, best, near)
        served = ~mine | values.isfinite()  # the rest is padding, or expanded before
        if following.allowed is not None:
            served = served & following.allowed.unflatten(1, (width, -1)).any(2)
        self.reached = scores.gather(1, index).masked_fill(~served, -torch.inf)
        parents = self.growth.slots[:, : self.size].expand(self.batch, -1).gather(1, index)
        self.rows = _with_selves(_take_rows(self.all_rows, parents), width)
        padding = self.all_rows.new_zeros(self.batch, self.all_rows.shape[1], width)
        self.all_rows = torch.cat((torch.cat((self.all_rows, padding), 2), self.rows), 1)
        depths = self.depths.gather(1, parents) + 1
        self.depths = torch.cat((self.depths, depths), 1)
        self.slot += level.width
        self.expanded.append(index.masked_fill(~served, 0))  # padding must not close a node
        tokens = padded(torch.cat(self.tokens, 1).gather(1, index), self.reached)
        self.rank.ask(following.children)
        return self.state.expand(Frontier(tokens, depths, self.rows, self.slot), self.rank)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row and where they are; on the CPU the first of equals first."""
    if not scores.is_cpu:
        return scores.topk(count, 1)
    values, index = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :count], index[:, :count]


def _take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """rows [B, W, S] at index [B, N]."""
    return rows.gather(1, index[:, :, None].expand(-1, -1, rows.shape[2]))


def _with_selves(rows: Tensor, width: int) -> Tensor:
    """What parents saw, [B, W, S], and each node itself behind it: [B, W, S + W]."""
    own = torch.eye(width, dtype=torch.bool, device=rows.device)
    return torch.cat((rows, own.expand(len(rows), -1, -1)), 2)


def _depths(parents: Tensor, depth: int) -> Tensor:
    """Steps to the root, [B, N]: the root is its own parent."""
    depths, node = torch.zeros_like(parents), torch.arange(parents.shape[1], device=parents.device)
    node = node.expand_as(parents)
    for _ in range(depth):
        depths = depths + (node != 0)
        node = parents.gather(1, node)
    return depths


def _reach(found: Candidates, parent_scores: Tensor) -> Tensor:
    """Log of the chance that each draw is tried: parent reached, elder siblings refused."""
    probability = found.scores.exp()
    left = 1 - (probability.cumsum(2) - probability)
    return (left.clamp(min=0).log() + parent_scores[:, :, None]).flatten(1)
