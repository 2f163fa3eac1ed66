"""Batches of replayed environments, and what a cycle of each costs by the table; in numpy.

Environments that share a batch share each cycle's seconds, which are those of its longest draft,
its largest tree and its decisions. Knows no heads and no books.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cost import Costs, Prices, price
from envs.oracle import static
from envs.trace import Trace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PRIOR = 100.0  # tokens that all texts together weigh in the pace of one


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

    def most(self, values: NDArray) -> NDArray:
        """[batches] the largest of each batch's values [B]; of truths, whether any is."""
        return np.maximum.reduceat(values, self.starts)

    def spread(self, values: NDArray) -> NDArray:
        """[B] what holds for the whole of each environment's batch, [batches]."""
        return np.repeat(values, self.sizes)


class Cycles(NamedTuple):
    """What a cycle of every environment comes to, [B] each: places in the trace's menu."""

    drafts: Ints  # the plan whose rounds were run
    plans: Ints  # the plan whose tree is verified
    asked: Ints  # questions after the plan


class Market:
    """What a batch's cycle costs under some loads (sequences decoded together)."""

    def __init__(self, trace: Trace, costs: Costs, loads: Sequence[int], learned: bool) -> None:
        self.trace, self.loads, self.costs = trace, list(loads), costs
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
        self.decide, self.ask = (
            np.array([price(load) if learned else 0.0 for load in self.loads])
            for price in (costs.deciding, costs.asking)
        )

    def seconds(self, at: Ints, cycles: Cycles, batches: Batches) -> Floats:
        """Every environment's share of its batch's cycle, [B]."""
        loads = batches.place[batches.starts]
        draft = batches.most(self.draft[batches.place, at, cycles.drafts])
        nodes = batches.most(self.nodes[at, cycles.plans])
        verify = self.verify[loads, batches.most(self.bucket[at]), nodes - 1]
        decide = self.decide[loads] + self.ask[loads] * cycles.asked[batches.starts]
        return batches.spread((draft + verify + decide) / batches.sizes)

    def savings(self, at: Ints, texts: Ints, batches: Batches) -> Floats:
        """[B, M] seconds that every plan saves against the text's pace.

        What a token is worth is what a text's tokens cost under the best static plan. The rest of
        a batch does the same as its environment.
        """
        place = batches.place[:, None]
        verify = self.verify[place, self.bucket[at][:, None], self.nodes[at] - 1]
        whole = self.draft[place[:, 0], at] + verify + self.decide[place]
        worth = self.paces[place[:, 0], texts][:, None]
        return self.trace.committed[at] * worth - whole / batches.load[:, None]

    @cached_property
    def paces(self) -> Floats:
        """[loads, P] seconds per token of every text under each load's best static plan.

        The luck of a short text would be learned with it, so it is drawn towards that of all.
        """
        trace, rows = self.trace, []
        for i, load in enumerate(self.loads):
            verify = self.verify[i, self.bucket[:, None], self.nodes - 1]
            plans = static(trace, (self.draft[i] + verify + self.decide[i]) / load)
            seconds, tokens = plans.seconds[:, plans.pooled], plans.tokens
            common = seconds.sum() / tokens.sum()
            rows.append((seconds + PRIOR * common) / (tokens + PRIOR))
        return np.stack(rows)
