"""How much of the oracle's lead anybody could win who cannot see the future, only its chances.

A network learns from one recording how likely each drafted token is to be accepted. In a world
where acceptance is drawn with just these chances, the best policy that knows all of them, at this
position and at every later one, is found by dynamic programming; so is the oracle, who also knows
the draws. What is between the two is luck. In the recorded world the same policy shows what
foresight by these chances is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.common import save
from envs.cost import Costs, price
from envs.oracle import gap_closed, oracle
from envs.trace import Trace
from policies.learners.networks import Net, fit
from spec_core.menu import Menu, read_name
from spec_core.plan import Plan

PAST = 4  # tokens before a position whose facts the network reads
Floats = NDArray[np.float64]


def inputs(trace: Trace, plan: Plan) -> NDArray:
    """[N, depth, features] of a chain's levels: it, the one before, the tokens before."""
    levels = trace.levels(plan)
    before = np.concatenate([np.zeros_like(levels[:, :1]), levels[:, :-1]], 1)
    past = []
    for back in range(1, PAST + 1):
        there = (trace.place >= back)[:, None]
        past.append(np.where(there, trace.told[np.maximum(trace.told_at - back, 0)], 0))
    facts = np.repeat(np.concatenate(past, 1)[:, None], plan.depth, 1)
    return np.concatenate([levels, before, facts], 2).astype(np.float32)


def accepted(trace: Trace) -> NDArray:
    """[N] tokens accepted of the menu's last plan, its deepest chain."""
    return trace.shapes["accepted"][:, -1].astype(int)


def learned(trace: Trace, plan: Plan, updates: int) -> Net:
    """A network for the odds that a level's token is accepted if those before it were."""
    levels = np.arange(plan.depth)
    length = accepted(trace)[:, None]
    tried = (levels <= length) & (levels < trace.shapes["drafted"][:, -1:])
    label = torch.from_numpy(
        np.broadcast_to(levels < length, tried.shape)[tried].astype(np.float32)
    )

    def loss(odds: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(odds[:, 0], label[at])

    return fit(inputs(trace, plan)[tried], loss, 1, (64, 64), updates=updates, decay=0.01)


def foretold(trace: Trace, net: Net) -> Floats:
    """[N, depth] chances that a level's token is accepted if those before it were."""
    plan = trace.menu.plans[-1]
    known = inputs(trace, plan)
    odds = net.predict(known.reshape(-1, known.shape[2])).reshape(-1, plan.depth)
    drafted = np.arange(plan.depth) < trace.shapes["drafted"][:, -1:]
    return np.where(drafted, 1 / (1 + np.exp(-odds.astype(np.float64))), 0.0)


class World:
    """Recorded texts, what chains of every length cost there, and their chances [N, depth]."""

    def __init__(self, trace: Trace, costs: Costs, fixed: Plan, chances: Floats) -> None:
        self.trace, self.chances = trace, chances
        self.seconds = price(trace, costs, 1).seconds  # [N, depth + 1] by levels drafted
        other = trace.with_menu(Menu.of(["ar", fixed]))
        self.fixed = price(other, costs, 1).seconds[:, 1]
        self.levels = other.shapes["drafted"][:, 1].astype(int)  # of the fixed plan

    def best(self) -> tuple[Floats, NDArray]:
        """Expected seconds of every text under the best levels [N], and these."""
        levels = np.zeros(len(self.trace), int)

        def choose(at: NDArray, ways: Floats) -> Floats:
            levels[at] = (self.seconds[at] + ways).argmin(1)
            return (self.seconds[at] + ways).min(1)

        return self._value(choose), levels

    def expected(self) -> Floats:
        """Expected seconds of every text under the fixed plan."""
        return self._value(
            lambda at, ways: self.fixed[at] + ways[np.arange(len(at)), self.levels[at]]
        )

    def _value(self, choose: Callable[[NDArray, Floats], Floats]) -> Floats:
        """choose: positions [n], seconds to come after each number of levels, to their values."""
        trace, count = self.trace, len(self.trace)
        reached = np.cumprod(np.column_stack((np.ones(count), self.chances)), 1)  # [N, levels]
        failing = reached * (1 - np.column_stack((self.chances, np.zeros(count))))
        value = np.zeros(count + len(trace.texts))  # each text's positions, then its end
        for at, texts in backwards(trace):
            step = np.minimum(np.arange(1, reached.shape[1] + 1), trace.left[at][:, None])
            then = value[at[:, None] + texts[:, None] + step]
            lost = np.cumsum(failing[at] * then, 1) - failing[at] * then  # at an earlier level
            value[at + texts] = choose(at, lost + reached[at] * then)
        return value[trace.first[:-1] + np.arange(len(trace.texts))]

    def drawn(self, random: np.random.Generator) -> Trace:
        """The recording, had acceptance been drawn with the chances."""
        hit = random.random(self.chances.shape) < self.chances
        length = np.cumprod(hit, 1).sum(1)[:, None]
        shapes = {**self.trace.shapes}
        shapes["accepted"] = np.minimum(length, np.arange(self.seconds.shape[1])).astype(np.uint8)
        return replace(self.trace, shapes=shapes)

    def followed(self, levels: NDArray, seconds: Floats) -> float:
        """Seconds of all texts where every cycle drafts so many levels and takes so long."""
        trace, total = self.trace, 0.0
        at, ends = trace.first[:-1], trace.first[1:]
        while len(at):
            total += seconds[at].sum()
            at = at + trace.committed[at, levels[at]]
            at, ends = at[at < ends], ends[at < ends]
        return total


def backwards(trace: Trace) -> Any:
    """Positions at the same distance from their texts' ends, the nearest first; and their texts."""
    for distance in range(1, int(trace.count.max()) + 1):
        texts = np.flatnonzero(trace.count >= distance)
        yield trace.first[texts + 1] - distance, texts


def compared(world: World, draws: int) -> dict[str, dict[str, float]]:
    """Tokens per second of the fixed plan, of foresight by chances, and of the oracle."""
    trace, tokens = world.trace, float(world.trace.count.sum())
    foresight, levels = world.best()
    random = np.random.default_rng(0)
    least = [oracle(world.drawn(random), world.seconds).seconds.sum() for _ in range(draws)]
    own = world.seconds[np.arange(len(trace)), levels]
    seconds = {
        "drawn": {
            "fixed": world.expected().sum(),
            "foresight": foresight.sum(),
            "oracle": np.mean(least),
        },
        "recorded": {
            "fixed": world.followed(world.levels, world.fixed),
            "foresight": world.followed(levels, own),
            "oracle": oracle(trace, world.seconds).seconds.sum(),
        },
    }
    found = {}
    for name, spent in seconds.items():
        speeds = {who: tokens / float(s) for who, s in spent.items()}
        share = gap_closed(speeds["foresight"], speeds["fixed"], speeds["oracle"])
        found[name] = {**speeds, "share": share}
    return found


def main() -> None:
    """Learn the chances, and write what knowing them is worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--train", type=Path, nargs="+", required=True, help="recordings to learn from"
    )
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="recordings to play on")
    parser.add_argument("--costs", type=Path, nargs="+", required=True, help="their cost tables")
    parser.add_argument("--plans", nargs="+", required=True, help="their best static chains")
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    runs = {}
    for train, test, costs, name in zip(
        options.train, options.test, options.costs, options.plans, strict=True
    ):
        fixed = read_name(name)
        menu = Menu.of(["ar", *(f"chain-{depth}" for depth in range(1, fixed.depth + 1))])
        known, played = (Trace.read(folder).with_menu(menu) for folder in (train, test))
        net = learned(known, menu.plans[-1], options.updates)
        world = World(played, Costs.read(costs), fixed, foretold(played, net))
        runs[f"T = {played.meta.temperature:g}"] = {
            "plan": name, "texts": len(played.texts), **compared(world, options.draws)
        }  # fmt: skip
        print(runs[f"T = {played.meta.temperature:g}"])
    save("ceiling", {"runs": runs, "past": PAST, "draws": options.draws})


if __name__ == "__main__":
    main()
