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

from spec_core.features import shape_facts
from spec_core.growth import grow
from spec_core.menu import plan_name
from spec_core.plan import Plan

CPU = torch.device("cpu")
MOST = 255  # candidates of a pool besides the root: parents are bytes


class Shape(NamedTuple):
    """What a plan drafts at one position, and how it ends there."""

    accepted: int
    drafted: int
    depth: int
    levels: int  # draft levels run where a draft that nobody needs ends early
    expected: float
    trust: float
    doubt: float


NOTHING = Shape(0, 0, 0, 0, 0.0, 0.0, 0.0)


def nested(plan: Plan) -> bool:
    """Whether the plan takes a part of a larger plan's pool."""
    return plan.frontier == "level" and plan.template is None


def drafts(plan: Plan) -> bool:
    """Whether the plan drafts at all."""
    return plan.depth > 0 and plan.budget > 1


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


class Nodes(NamedTuple):
    """One position's pool, the root first, then the best first; plain lists."""

    scores: list[float]
    parents: list[int]
    depths: list[int]
    hits: list[bool]  # on the recorded text

    @classmethod
    def of(cls, scores: NDArray, parents: NDArray, hits: NDArray) -> Nodes:
        """From the recorded row; depths follow from the parents."""
        above, depths = parents.tolist(), [0]
        for parent in above[1:]:
            depths.append(depths[parent] + 1)
        return cls(scores.tolist(), above, depths, hits.tolist())


@lru_cache(maxsize=256)
def _least(threshold: float) -> float:
    return float(torch.tensor(threshold).log())


def shape(plan: Plan, nodes: Nodes) -> Shape:
    """What `plan`, already shrunk to what fits, makes of a pool."""
    if not drafts(plan):
        return NOTHING
    scores, parents, depths, hits = nodes
    least, alone = _least(plan.threshold), -np.inf
    passed = [
        n for n in range(1, len(scores))
        if depths[n] <= plan.depth and scores[n] >= least and scores[n] > alone
    ]  # fmt: skip
    kept = [0, *passed[: plan.budget - 1]]
    place = {node: i for i, node in enumerate(kept)}
    path = [i for i, node in enumerate(kept) if i and hits[node]]
    facts = shape_facts(
        [scores[n] for n in kept], [place[parents[n]] for n in kept],
        [depths[n] for n in kept], path,
    )  # fmt: skip
    reached = max((depths[n] for n in passed), default=0)
    levels = min(plan.depth, reached + 1) if plan.threshold else plan.depth
    return Shape(len(path), len(kept) - 1, int(facts[0]), levels, *facts[1:])


Recorded = tuple[NDArray, NDArray, NDArray]  # scores, parents, hits: [N, candidates] each
COUNTS, NUMBERS = Shape._fields[:4], Shape._fields[4:]


def columns(
    plans: tuple[Plan, ...], known: tuple[Plan, ...], recorded: list[Recorded], rooms: NDArray,
    max_nodes: int,
) -> dict[str, NDArray]:  # fmt: skip
    """What every plan makes of every position, [N, plans] each; rooms [N]: depth that fits."""
    places = [_served(plan, known) if drafts(plan) else -1 for plan in plans]
    made = np.zeros((len(rooms), len(plans), len(Shape._fields)))
    for i, room in enumerate(rooms.tolist()):
        nodes = [Nodes.of(*(part[i] for part in pool)) for pool in recorded]
        for m, (plan, place) in enumerate(zip(plans, places, strict=True)):
            if place >= 0:
                made[i, m] = shape(plan.within(room, max_nodes), nodes[place])
    kinds = {name: np.uint8 for name in COUNTS} | {name: np.float32 for name in NUMBERS}
    return {n: made[:, :, i].astype(kinds[n]) for i, n in enumerate(Shape._fields)}


def _served(plan: Plan, known: tuple[Plan, ...]) -> int:
    place = pool_of(plan, known)
    if place < 0:
        raise ValueError(f"the plan {plan_name(plan)} is no part of what was recorded: record anew")
    return place
