"""Plans to draft levels: how a drafter's proposals grow into trees. Knows no models and no clock.

Everything that depends only on the plans is computed here once, on the host, and cached, so that
drafting itself is a fixed sequence of tensor operations without a host read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, zip_longest

import numpy as np
import torch
from torch import Tensor

from spec_core.plan import Plan, Template


@dataclass(frozen=True)
class Level:
    """One draft round over a batch: `width` nodes are expanded into `children` candidates each."""

    width: int
    children: int
    allowed: Tensor | None  # [B, width * children] bool; None: all
    chosen: (
        Tensor | None
    )  # [B, next width] candidate to expand next; -1: by score; None: all by score


@dataclass(frozen=True)
class Growth:
    """The rounds that serve the plans of a batch, padded to the largest."""

    levels: tuple[Level, ...]
    best: Tensor | None  # [B] bool: expand the best unexpanded nodes anywhere; None: nobody
    thresholds: Tensor | None  # [B, 1] log path probability; None: nobody
    depths: tuple[int, ...]  # rounds per sequence
    budgets: tuple[int, ...]  # nodes per sequence, the root included
    budget: Tensor  # the same, [B, 1]
    limits: Tensor  # [B, 1] rounds that a chain may have within its budget
    slots: Tensor  # [1, pool] the draft slot of each candidate's parent; the root's own is 0
    padded: bool  # some sequence has fewer candidates than the padding

    @cached_property
    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """For chains: how long each text's may be, and the path score it may not fall below."""
        floors = np.full(len(self.budgets), -math.inf, np.float32)
        if self.thresholds is not None:
            floors[:] = self.thresholds.numpy()[:, 0]
        return self.limits.numpy()[:, 0].copy(), floors

    @cached_property
    def idle(self) -> bool:
        """Nothing is to be drafted for anybody."""
        return not self.levels or max(self.budgets) == 1

    @cached_property
    def least(self) -> float:
        """The log path probability below which the only text's candidates are dropped."""
        return -math.inf if self.thresholds is None else float(self.thresholds)

    @cached_property
    def single(self) -> bool:
        """At most one candidate per round: no selection is needed."""
        return all(level.width * level.children == 1 for level in self.levels)

    @cached_property
    def chain(self) -> bool:
        """One candidate per round for everybody."""
        return self.single and not self.padded and len(self.levels) < min(self.budgets)

    @cached_property
    def expanded(self) -> int:
        """Nodes that all rounds expand in a sequence."""
        return sum(level.width for level in self.levels)

    @cached_property
    def children(self) -> int:
        """The most candidates behind one node."""
        return max(level.children for level in self.levels)

    @cached_property
    def rounds(self) -> tuple[np.ndarray, ...]:
        """For one text, as arrays: widths and children by level; of each candidate, the root first,
        its parent's draft slot and whether it may be; which of the newest each slot expands."""
        allowed, chosen = [np.ones(1, bool)], [np.zeros(1, np.int64)]
        for level, onward in zip(self.levels, [*self.levels[1:], None], strict=True):
            every = np.ones(level.width * level.children, bool)
            allowed.append(every if level.allowed is None else level.allowed[0].numpy())
            if onward is not None:
                by_score = np.full(onward.width, -1)
                chosen.append(by_score if level.chosen is None else level.chosen[0].numpy())
        widths, children = np.array([(level.width, level.children) for level in self.levels]).T
        return (
            widths.copy(), children.copy(), self.slots[0].numpy(),
            np.concatenate(allowed), np.concatenate(chosen),
        )  # fmt: skip

    @property
    def nodes(self) -> int:
        """Nodes in the padded trees."""
        pool = 1 + sum(level.width * level.children for level in self.levels)
        return min(pool, max(self.budgets))


def _children(plan: Plan) -> int:
    if plan.template:
        return max(plan.template.ranks, default=0) + 1
    return plan.children or plan.width


def _expanded(template: Template) -> list[list[int]]:
    """For each depth below the last, the nodes that have children, in order."""
    depths, levels = template.depths, []
    parents = set(template.parents)
    for depth in range(max(depths)):
        levels.append([n for n, d in enumerate(depths) if d == depth and n in parents])
    return levels


def _widths(plan: Plan) -> list[int]:
    """Nodes expanded in each round."""
    if plan.template:
        return [len(nodes) for nodes in _expanded(plan.template)]
    children, pool, widths = _children(plan), 1, []
    for _ in range(plan.depth):
        widths.append(min(plan.width, pool))
        left = 0 if plan.frontier == "level" else pool - widths[-1]
        pool = left + widths[-1] * children
    return widths


@lru_cache(maxsize=256)
def rounds(plans: tuple[Plan, ...], room: int) -> int:
    """How many of the first rounds expand no more than `room` nodes of a sequence."""
    widths = zip_longest(*map(_widths, plans), fillvalue=0)
    return sum(expanded <= room for expanded in accumulate(map(max, widths)))


def _template_level(template: Template, depth: int, children: int) -> tuple[list[int], list[int]]:
    """Candidates that are nodes at depth + 1, and those of them to expand next, as flat indices."""
    frontier = {node: slot for slot, node in enumerate(_expanded(template)[depth])}
    flat = {
        node: frontier[parent] * children + rank
        for node, (parent, rank) in enumerate(zip(template.parents, template.ranks, strict=True), 1)
        if parent in frontier
    }
    onward = _expanded(template)[depth + 1] if depth + 1 < max(template.depths) else []
    return sorted(flat.values()), [flat[node] for node in onward]


@lru_cache(maxsize=256)
def grow(plans: tuple[Plan, ...], sampled: bool, device: torch.device) -> Growth:
    """The draft rounds for these plans; `sampled`: candidates are drawn, so none may be dropped."""
    depth = max(plan.depth for plan in plans)
    widths = [_widths(plan) + [0] * (depth - plan.depth) for plan in plans]
    left = [plan.budget - 1 for plan in plans]
    levels = []
    for d in range(depth):
        width, children = max(w[d] for w in widths), max(_children(p) for p in plans if p.depth > d)
        onward = max(w[d + 1] for w in widths) if d + 1 < depth else 0
        levels.append(_level(plans, d, (width, children, onward), widths, left, sampled, device))
    best = [plan.frontier == "best" and plan.template is None for plan in plans]
    thresholds = None
    if any(plan.threshold for plan in plans):
        thresholds = torch.tensor([[plan.threshold] for plan in plans], device=device).log()
    budgets = tuple(plan.budget for plan in plans)
    return Growth(
        levels=tuple(levels),
        best=torch.tensor(best, device=device) if any(best) else None,
        thresholds=thresholds,
        depths=tuple(plan.depth for plan in plans),
        budgets=budgets,
        budget=torch.tensor(budgets, device=device)[:, None],
        limits=torch.tensor([[min(p.depth, p.budget - 1)] for p in plans], device=device),
        slots=_slots(levels).to(device),
        padded=any(level.allowed is not None for level in levels)
        or len({p.budget for p in plans}) > 1,
    )


def _slots(levels: list[Level]) -> Tensor:
    """The draft slot of every candidate's parent, level by level, the root first."""
    children = [level.children for level in levels for _ in range(level.width)]
    made = np.repeat(np.arange(len(children)), children)
    return torch.from_numpy(np.concatenate(([0], made)).astype(np.int64))[None]


def _level(
    plans: tuple[Plan, ...], d: int, size: tuple[int, int, int], widths: list[list[int]],
    left: list[int], sampled: bool, device: torch.device,
) -> Level:  # fmt: skip
    width, children, onward = size
    alike = all(
        plan.depth > d and not plan.template and widths[b][d] == width
        and _children(plan) == children for b, plan in enumerate(plans)
    )  # fmt: skip
    if alike and not sampled:  # nothing is padded: said without tensors, for texts that end
        return Level(width, children, None, None)
    allowed = torch.zeros(len(plans), width, children, dtype=torch.bool)
    chosen = torch.full((len(plans), onward), -1)
    for b, plan in enumerate(plans):
        if d >= plan.depth:
            continue
        if plan.template:
            nodes, next_nodes = _template_level(plan.template, d, children)
            allowed[b].view(-1)[nodes] = True
            chosen[b, : len(next_nodes)] = torch.tensor(next_nodes, dtype=torch.int64)
        else:
            allowed[b, : widths[b][d], : _children(plan)] = True
        if sampled:
            _draw_only(allowed[b], left, b)
    templates = any(plan.template for plan in plans)
    return Level(
        width,
        children,
        None if bool(allowed.all()) else allowed.flatten(1).to(device),
        chosen.to(device) if templates and onward else None,
    )


def _draw_only(allowed: Tensor, left: list[int], b: int) -> None:
    """Cut one sequence's draws of a level to its budget, and refuse shapes that skip a draw."""
    if bool((allowed[:, 1:] & ~allowed[:, :-1]).any()):
        raise ValueError(
            "drawn siblings cannot be skipped: a template needs ranks 0, 1, ... in full"
        )
    drawn = allowed.flatten().cumsum(0).view_as(allowed)
    allowed &= drawn <= left[b]
    left[b] -= int(allowed.sum())
