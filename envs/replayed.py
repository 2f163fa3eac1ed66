"""The engine behind the replay environments: recorded cycles at measured prices, in numpy.

Every environment is one text, or waits for nothing; environments that share a batch share each
cycle's seconds, which are those of its longest draft and its largest tree. Knows no gymnasium.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.cost import Costs, Prices, price
from envs.oracle import ahead, static
from envs.rewards import Rate, Reward
from envs.trace import Trace
from spec_core.features import FEATURES, Array, advance, fresh, vector

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NOW = 500.0  # steps that the rate remembers


class Market:
    """What a batch's cycle costs under some loads (sequences decoded together)."""

    def __init__(self, trace: Trace, costs: Costs, loads: Sequence[int], learned: bool) -> None:
        self.loads, self.costs = list(loads), costs
        bounds = np.array(costs.contexts)
        self.bucket = bounds.searchsorted(trace.lengths)
        prices: list[Prices] = [price(trace, costs, load) for load in self.loads]
        self.nodes = prices[0].nodes
        self.draft = np.stack([p.draft for p in prices])  # [loads, N, M]
        sizes = np.arange(1, int(self.nodes.max()) + 1)
        used = bounds[: int(self.bucket.max()) + 1]
        self.verify = np.stack(
            [costs.verifying(sizes, used[:, None], load) for load in self.loads]
        )  # [loads, contexts, nodes - 1]
        if learned:
            added = [costs.deciding(load) for load in self.loads]
            self.verify = self.verify + np.array(added)[:, None, None]

    def seconds(self, at: Ints, plans: Ints, batches: Batches) -> Floats:
        """Every environment's share of its batch's cycle, [B]."""
        draft, nodes = self.draft[batches.place, at, plans], self.nodes[at, plans]
        largest = np.maximum.reduceat
        whole = largest(draft, batches.starts) + self.verify[
            batches.place[batches.starts], largest(self.bucket[at], batches.starts),
            largest(nodes, batches.starts) - 1,
        ]  # fmt: skip
        return np.repeat(whole / batches.sizes, batches.sizes)


class Batches:
    """Environments in batches of the given loads, which take turns until all are placed."""

    def __init__(self, loads: Sequence[int], num_envs: int) -> None:
        if not loads or min(loads) < 1:
            raise ValueError(f"loads are batch sizes from 1 on, not {list(loads)}")
        rounds, left = divmod(num_envs, sum(loads))
        places = list(range(len(loads))) * rounds
        for place, load in enumerate(loads):
            if left >= load:
                places.append(place)
                left -= load
        if left:
            raise ValueError(
                f"{num_envs} environments cannot be split into batches of {list(loads)}: "
                f"take a multiple of {sum(loads)}"
            )
        self.sizes = np.array(loads)[places]
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.place = np.repeat(places, self.sizes)  # [B] which load
        self.load = np.repeat(self.sizes, self.sizes).astype(np.float32)  # [B]


@dataclass
class Step:
    """What one step of all environments gave; arrays are [B]."""

    features: Array  # [B, F] what the next actions are asked on
    rewards: Floats
    over: Mask  # texts that ended in this step
    figures: dict[str, NDArray]  # of the cycle
    final: Array  # [B, F] the features at the ends of those that are over
    texts: Ints  # of the cycle, as places in the trace


class Replay:
    """B environments over a trace; an ended text's place is taken by the next one at once."""

    def __init__(
        self, trace: Trace, costs: Costs, num_envs: int, reward: Reward,
        loads: Sequence[int] = (1,), seed: int = 0, noise: bool = False, learned: bool = True,
    ) -> None:  # fmt: skip
        self.trace, self.reward, self.num_envs = trace, reward, num_envs
        self.batches = Batches(loads, num_envs)
        self.market = Market(trace, costs, loads, learned)
        self.spread = costs.spread if noise else 0.0
        self.depths = np.array([plan.depth for plan in trace.menu.plans])
        self.names = np.array([(t.id, t.domain) for t in trace.texts], object)
        self.speed = Rate(NOW)
        self.texts = self.at = np.zeros(0, np.int64)  # none before the first reset
        self.handed = True  # the first observations of all texts were given out already
        self.begin(seed)

    @property
    def size(self) -> int:
        """Floats per observation."""
        return len(FEATURES)

    def begin(self, seed: int, taken: int = 0) -> None:
        """Start over, or where `taken` texts were handed out."""
        self.seed, self.taken, self.turn = seed, taken, -1
        self.chance = np.random.default_rng((seed, taken))

    def take(self, count: int) -> Ints:
        """The next texts: all of them, then all again, in an order that seed and pass determine."""
        size, made = len(self.trace.texts), []
        while count:
            turn, place = divmod(self.taken, size)
            if self.turn != turn:
                self.turn = turn
                self.order = np.random.default_rng((self.seed, turn)).permutation(size)
            part = self.order[place : place + count]
            made.append(part)
            self.taken, count = self.taken + len(part), count - len(part)
        return np.concatenate(made)

    def reset(self, seed: int | None = None) -> Array:
        """All environments begin a text, or go on where all texts have just ended."""
        if seed is not None:
            self.begin(seed)
        if seed is not None or self.handed:
            self.texts = self.take(self.num_envs)
            self.at = self.trace.first[self.texts]
            self.history, self.first = fresh(self.num_envs), np.ones(self.num_envs, np.float32)
        self.handed = True
        self.reward.begin()
        return self._features()

    def _features(self) -> Array:
        """Before the next plans."""
        trace, at = self.trace, self.at
        return vector(
            self.history, trace.lengths[at].astype(np.float32),
            trace.remaining[at].astype(np.float32), self.batches.load, trace.meta.temperature,
            self.first,
        )  # fmt: skip

    @property
    def masks(self) -> Mask:
        """[B, M] plans that the end of the text or of the draft's context leaves as they are."""
        return self.depths <= np.maximum(self.trace.rooms[self.at], 0)[:, None]

    def step(self, plans: Ints) -> Step:
        """One cycle of every environment."""
        self._check(plans)
        trace, at, texts = self.trace, self.at, self.texts
        seen, tokens = trace.facts(at, plans), trace.committed[at, plans]
        seconds = self.market.seconds(at, plans, self.batches)
        if self.spread:
            whole = self.chance.standard_normal(len(self.batches.sizes))
            seconds = seconds * np.exp(self.spread * np.repeat(whole, self.batches.sizes))
        self.history, self.at = advance(self.history, seen), at + tokens
        self.first = np.zeros(self.num_envs, np.float32)
        over = self.at == trace.first[texts + 1]
        final = self._ends(over)
        if over.any():
            self._next(over)
        made, every = self._features(), np.ones(self.num_envs, bool)
        figures = {
            "tokens": tokens, "seconds": seconds, "accepted": seen.accepted,
            "drafted": seen.drafted, "depth": seen.depth,
        }  # fmt: skip
        rewards = self.reward(tokens.astype(np.float64), seconds, every, over)
        self.speed.add(tokens, seconds)
        self.handed = not over.all()
        return Step(made, rewards, over, figures, final, texts)

    def savings(self) -> Floats:
        """[B, M] seconds every plan saves by the text's end, the best static plan behind it.

        What a token is worth depends on what the tokens behind it cost: that is counted here. The
        rest of a batch does the same as its environment.
        """
        market, at, place = self.market, self.at, self.batches.place[:, None]
        verify = market.verify[place, market.bucket[at][:, None], market.nodes[at] - 1]
        now = (market.draft[place[:, 0], at] + verify) / self.batches.load[:, None]
        there = at[:, None] + self.trace.committed[at] + self.texts[:, None]
        return self.ahead[place[:, 0], at + self.texts][:, None] - now - self.ahead[place, there]

    @cached_property
    def ahead(self) -> Floats:
        """[loads, N + P] seconds to the ends of the texts under each load's best static plan."""
        trace, rows = self.trace, []
        for i, load in enumerate(self.market.loads):
            verify = self.market.verify[i, self.market.bucket[:, None], self.market.nodes - 1]
            seconds = (self.market.draft[i] + verify) / load
            rows.append(ahead(trace, seconds, static(trace, seconds).pooled))
        return np.stack(rows)

    def _check(self, plans: Ints) -> None:
        if not len(self.at):
            raise ValueError("reset the environment first")
        if plans.shape != (self.num_envs,) or plans.dtype.kind not in "iu":
            raise ValueError(f"actions must be {self.num_envs} whole numbers, not {plans}")
        if not ((plans >= 0) & (plans < len(self.depths))).all():
            raise ValueError(f"actions must be from 0 to {len(self.depths) - 1}, not {plans}")

    def _ends(self, over: Mask) -> Array:
        """The features at the ends of texts, which no policy is asked on."""
        final = np.zeros((self.num_envs, self.size), np.float32)
        if over.any():
            trace, texts = self.trace, self.texts[over]
            length = trace.prompt[texts] + trace.count[texts]
            final[over] = vector(
                self.history[over], length.astype(np.float32),
                (trace.limit[texts] - length).astype(np.float32), self.batches.load[over],
                trace.meta.temperature, self.first[over],
            )  # fmt: skip
        return final

    def _next(self, over: Mask) -> None:
        texts = self.take(int(over.sum()))
        self.texts = self.texts.copy()
        self.texts[over], self.at[over] = texts, self.trace.first[texts]
        self.history[over], self.first[over] = fresh(len(texts)), 1.0

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON: texts under way are not kept."""
        return {
            "reward": self.reward.state(), "speed": self.speed.state(),
            "seed": self.seed, "taken": self.taken,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the text after those of `state`; the next thing must be a reset."""
        self.reward.restore(state["reward"])
        self.speed.restore(state["speed"])
        self.begin(state["seed"], state["taken"])
        self.handed = True
