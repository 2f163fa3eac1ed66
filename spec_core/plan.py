"""What a policy asks of the next cycle: values only; knows no tensors and no models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Frontier = Literal["level", "best"]


@dataclass(frozen=True)
class Template:
    """A fixed tree shape: node i + 1 hangs under `parents[i]` as its `ranks[i]`-th best child."""

    parents: tuple[int, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.parents) == len(self.ranks), "one parent and one rank per drafted node"
        for node, (parent, rank) in enumerate(zip(self.parents, self.ranks, strict=True), start=1):
            assert 0 <= parent < node, f"node {node}: a parent must precede its child"
            assert rank >= 0, f"node {node}: ranks count from 0"
        edges = set(zip(self.parents, self.ranks, strict=True))
        assert len(edges) == len(self.parents), "two nodes share a parent and a rank"

    @property
    def depths(self) -> tuple[int, ...]:
        """Depth of every node, the root first."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    def cut(self, depth: int) -> Template:
        """The same shape without the nodes deeper than `depth`."""
        kept = [i for i, d in enumerate(self.depths) if d <= depth]
        new = {old: i for i, old in enumerate(kept)}
        parents = tuple(new[self.parents[i - 1]] for i in kept[1:])
        return Template(parents, tuple(self.ranks[i - 1] for i in kept[1:]))


@dataclass(frozen=True)
class Plan:
    """One cycle of one sequence; depth 0 is the plain autoregressive step."""

    depth: int
    width: int = 1  # nodes expanded per round
    children: int = 0  # candidates tried per expanded node; 0: as many as width
    budget: int = 64  # nodes sent to the target, the root included: the best by path probability
    threshold: float = 0.0  # candidates whose path probability is lower are dropped
    frontier: Frontier = "level"  # expand the newest level's best, or the best unexpanded anywhere
    template: Template | None = None  # a fixed shape instead of growth

    def __post_init__(self) -> None:
        assert self.depth >= 0, f"depth must be at least 0, not {self.depth}"
        assert self.width >= 1, f"width must be at least 1, not {self.width}"
        assert self.children >= 0, f"children must be at least 0, not {self.children}"
        assert self.budget >= 1, f"budget must be at least 1 (the root), not {self.budget}"
        assert 0 <= self.threshold <= 1, f"threshold is a probability, not {self.threshold}"
        assert not math.isnan(self.threshold)
        assert self.frontier in ("level", "best"), f"unknown frontier {self.frontier!r}"
        if self.template is not None:
            assert self.depth == max(self.template.depths), "depth must be the template's"

    @classmethod
    def of(cls, template: Template) -> Plan:
        """The plan that drafts exactly this template."""
        nodes = len(template.parents) + 1
        return cls(depth=max(template.depths), budget=nodes, template=template)

    def within(self, depth: int, budget: int) -> Plan:
        """The same plan shrunk to what fits; a plan that fits is returned unchanged."""
        if self.depth <= depth and self.budget <= budget:
            return self
        depth, budget = max(0, min(self.depth, depth)), max(1, min(self.budget, budget))
        template = self.template.cut(depth) if self.template else None
        return Plan(
            depth, self.width, self.children, budget, self.threshold, self.frontier, template
        )


AUTOREGRESSIVE = Plan(depth=0, budget=1)
