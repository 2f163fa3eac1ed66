"""Recorded candidates, and what any plan of the same growth makes of them.

The candidates of a level beam do not depend on how many are kept: a smaller depth or budget, or a
higher threshold, takes a part of the same pool, best first. Such plans share one pool, drafted once
by the plan that takes all of it; a template or best-first plan has a pool of its own.
Knows no models, no files and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spec_core.features import CUTS, LEVEL_FEATURES
from spec_core.growth import grow
from spec_core.menu import plan_name
from spec_core.plan import Plan

CPU = torch.device("cpu")
MOST = 255  # candidates of a pool besides the root: parents are bytes


class Shape(NamedTuple):
    """What a plan drafts at N positions, and how it ends there: [N] each."""

    accepted: NDArray
    drafted: NDArray
    depth: NDArray
    levels: NDArray  # draft levels run where a draft that nobody needs ends early
    spared: NDArray  # of these, where one text drafts alone, those that cost hardly anything
    expected: NDArray
    trust: NDArray
    doubt: NDArray


def nested(plan: Plan) -> bool:
    """Whether the plan takes a part of a larger plan's pool."""
    return plan.frontier == "level" and plan.template is None


def drafts(plan: Plan) -> bool:
    """Whether the plan drafts at all."""
    return plan.depth > 0 and plan.budget > 1


@lru_cache(maxsize=1024)
def branches(plan: Plan) -> bool:
    """Whether the plan's trees are more than a line, which one text verifies in a quicker way."""
    return any(lv.width * lv.children > 1 for lv in grow((plan,), False, CPU).levels)


@lru_cache(maxsize=1024)
def widths(plan: Plan) -> tuple[int, ...]:
    """Nodes expanded in each round."""
    return tuple(level.width for level in grow((plan,), False, CPU).levels)


def whole(plan: Plan) -> Plan:
    """The plan that takes the entire pool that this plan draws from."""
    if not nested(plan):
        return plan
    free = replace(plan, children=plan.children or plan.width, threshold=0.0, budget=2)
    pool = 1 + sum(width * free.children for width in widths(free))
    return replace(free, budget=pool)


def pools(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The plans to draft once each, in a fixed order, so that all of `plans` are known."""
    found: dict[Plan, Plan] = {}
    for plan in filter(drafts, plans):
        kind = replace(whole(plan), depth=1, budget=2) if nested(plan) else plan
        found[kind] = max((found.get(kind, plan), plan), key=lambda p: p.depth)
    made = tuple(sorted(map(whole, found.values()), key=repr))
    for plan in made:
        if plan.budget > MOST + 1:
            raise ValueError(
                f"a plan of depth {plan.depth} and width {plan.width} has {plan.budget - 1} "
                f"candidates, {MOST} can be recorded: lower its depth, width or children"
            )
    return made


def pool_of(plan: Plan, known: tuple[Plan, ...]) -> int:
    """The place of the pool that serves the plan; -1 where none does."""
    mine = whole(plan)
    for place, pool in enumerate(known):
        if mine == pool:
            return place
        if nested(plan) and nested(pool) and mine.depth <= pool.depth:
            if (mine.width, mine.children) == (pool.width, pool.children):
                return place
    return -1


class Recorded(NamedTuple):
    """A pool as it was recorded: [N, candidates] each but for the last."""

    scores: NDArray
    parents: NDArray
    hits: NDArray
    spared: NDArray  # [N, levels]


class Pool(NamedTuple):
    """The candidates at N positions, [N, C] each: the root first, then the best first."""

    scores: NDArray  # log path probabilities; -inf: none
    parents: NDArray
    depths: NDArray
    hits: NDArray  # on the recorded text
    spared: NDArray  # [N, levels]

    @classmethod
    def of(cls, recorded: Recorded) -> Pool:
        """From what was recorded; depths follow from the parents."""
        scores, parents, hits, spared = recorded
        rows, depths = np.arange(len(scores)), np.zeros(parents.shape, np.uint8)
        for node in range(1, parents.shape[1]):
            depths[:, node] = depths[rows, parents[:, node]] + 1
        return cls(scores, parents, depths, hits, spared)

    def passed(self, plan: Plan, rooms: NDArray) -> NDArray:
        """[N, C] what a plan drafts where so many levels fit, before its budget."""
        fits = np.clip(rooms, 0, plan.depth)[:, None]
        found = (self.depths <= fits) & (self.scores >= _least(plan.threshold))
        found &= self.scores > -np.inf
        found[:, 0] = False
        return found


@lru_cache(maxsize=256)
def _least(threshold: float) -> float:
    return float(torch.tensor(threshold).log())


def shape(plan: Plan, pool: Pool, rooms: NDArray, max_nodes: int) -> Shape:
    """What a plan that drafts makes of every position; rooms: [N] levels that fit."""
    fits, passed = np.clip(rooms, 0, plan.depth), pool.passed(plan, rooms)
    kept = passed & (passed.cumsum(1, np.uint8) < min(plan.budget, max_nodes))
    path = kept & pool.hits
    rows, stop = np.arange(len(rooms)), (path * np.arange(path.shape[1])).max(1)
    here = pool.scores[rows, stop].astype(np.float64)
    beneath = kept & (pool.parents == stop[:, None])
    best = np.where(beneath, pool.scores, -np.inf).max(1)
    weights = np.where(kept, np.exp(pool.scores), np.float32(0))
    accepted, reached = path.sum(1), (passed * pool.depths).max(1).astype(np.int64)
    run = np.minimum(fits, reached + 1) if plan.threshold else fits
    among = np.arange(pool.spared.shape[1]) < run[:, None]
    among &= plan.depth < min(plan.budget, max_nodes)  # others are drafted as trees are
    return Shape(
        accepted, kept.sum(1), (kept * pool.depths).max(1), run, (pool.spared & among).sum(1),
        weights.cumsum(1)[:, -1],  # in order: a sum that does not depend on padding
        here / np.maximum(accepted, 1), np.exp((best - here).astype(np.float32)),
    )  # fmt: skip


def levels(plan: Plan, pool: Pool, rooms: NDArray, entropies: NDArray) -> NDArray:
    """[N, depth, LEVEL_FEATURES] after each level of a plan; entropies [N, levels] were recorded.

    What was not drafted has no paths; a draft's entropy there is that of its best path's sequel.
    """
    passed, chances = pool.passed(plan, rooms), np.exp(pool.scores)
    made = np.zeros((len(rooms), plan.depth, len(LEVEL_FEATURES)), np.float32)
    before, total = np.zeros(len(rooms), np.float32), np.float32(0)
    for level in range(1, plan.depth + 1):
        new = passed & (pool.depths == level)
        best = np.where(new, pool.scores, np.float32(-np.inf)).max(1)
        mass = np.where(new, chances, np.float32(0)).sum(1)
        with np.errstate(invalid="ignore"):  # no path behind no path
            step = np.nan_to_num(best - before, nan=-20.0, neginf=-20.0)
        before, total = best, total + mass
        made[:, level - 1, 0], made[:, level - 1, 1] = level / 8, np.maximum(best, -20) / 4
        made[:, level - 1, 2], made[:, level - 1, 3] = np.maximum(step, -20) / 4, mass
        made[:, level - 1, 4] = total / 8
    deepest = min(plan.depth, entropies.shape[1])
    made[:, :deepest, 5] = entropies[:, :deepest]
    return made


def gains(plan: Plan, pool: Pool, rooms: NDArray, max_nodes: int) -> NDArray:
    """[N, TREE_FEATURES] of the trees of a plan."""
    passed = pool.passed(plan, rooms)
    rank, most = passed.cumsum(1, np.uint8), min(plan.budget, max_nodes)
    weights = np.where(passed, np.exp(pool.scores), np.float32(0))
    sums = [np.where(rank < min(cut, most), weights, 0).cumsum(1)[:, -1] for cut in CUTS]
    return (np.stack(sums, 1) / 8).astype(np.float32)


COUNTS, NUMBERS = Shape._fields[:5], Shape._fields[5:]


def columns(
    plans: tuple[Plan, ...], known: tuple[Plan, ...], recorded: list[Recorded], rooms: NDArray,
    max_nodes: int,
) -> dict[str, NDArray]:  # fmt: skip
    """What every plan makes of every position, [N, plans] each; rooms [N]: depth that fits."""
    kinds = {name: np.uint8 for name in COUNTS} | {name: np.float32 for name in NUMBERS}
    made = {name: np.zeros((len(rooms), len(plans)), kind) for name, kind in kinds.items()}
    pooled = [Pool.of(parts) for parts in recorded]
    for m, plan in enumerate(plans):
        if drafts(plan):
            found = shape(plan, pooled[served(plan, known)], rooms, max_nodes)
            for name, values in zip(Shape._fields, found, strict=True):
                made[name][:, m] = values
    return made


def served(plan: Plan, known: tuple[Plan, ...]) -> int:
    """The place of the pool that serves the plan; refuses one that none does."""
    place = pool_of(plan, known)
    if place < 0:
        raise ValueError(f"the plan {plan_name(plan)} is no part of what was recorded: record anew")
    return place
