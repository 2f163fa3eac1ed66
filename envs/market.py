"""Batches of replayed environments, and what a cycle of each costs by the table; in numpy.

Environments that share a batch share each cycle's seconds: those of its longest draft, its trees
and its decisions. Trees are paid as the largest or, where padding is not computed (`Costs.packed`),
as their mean. Knows no heads and no books.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cost import Costs, Prices, grains, lengths, price
from envs.shapes import branches
from envs.trace import Trace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PRIOR = 100.0  # tokens that all texts together weigh in the pace of one


class Batches:
    """Texts in batches: `loads` are the sizes that there are, `places` says which one each has."""

    def __init__(self, loads: Sequence[int], places: Sequence[int] | Ints) -> None:
        self.loads, self.places = loads, places
        self.sizes = np.array(loads)[places]
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.place = np.repeat(places, self.sizes)  # [B] which load
        self.load = np.repeat(self.sizes, self.sizes).astype(np.float32)  # [B]

    @classmethod
    def turns(cls, loads: Sequence[int], count: int) -> Batches:
        """So many batches; the loads take turns."""
        _check(loads)
        return cls(loads, np.arange(count) % len(loads))

    @classmethod
    def split(cls, loads: Sequence[int], texts: int) -> Batches:
        """So many texts; the loads take turns until all are placed."""
        _check(loads)
        rounds, left = divmod(texts, sum(loads))
        places = list(range(len(loads))) * rounds
        for place, load in enumerate(loads):
            if left >= load:
                places.append(place)
                left -= load
        if left:
            raise ValueError(
                f"{texts} environments cannot be split into batches of {list(loads)}: "
                f"take a multiple of {sum(loads)}"
            )
        return cls(loads, places)

    def dealt(self, chance: np.random.Generator) -> Batches:
        """The same sizes, each somewhere else: who is in which batch, and under which load."""
        return Batches(self.loads, chance.permutation(self.places))

    def most(self, values: NDArray) -> NDArray:
        """[batches] the largest of each batch's values [B]; of truths, whether any is."""
        return np.maximum.reduceat(values, self.starts)

    def spread(self, values: NDArray) -> NDArray:
        """[B] what holds for the whole of each environment's batch, [batches]."""
        return np.repeat(values, self.sizes, 0)

    def means(self, values: NDArray) -> NDArray:
        """[batches] the mean of each batch's values [B]."""
        sums = np.add.reduceat(values, self.starts, dtype=np.float64)
        return (sums.T / self.sizes).T


def _check(loads: Sequence[int]) -> None:
    if not loads or min(loads) < 1:
        raise ValueError(f"loads are batch sizes from 1 on, not {list(loads)}")


class Cycles(NamedTuple):
    """What a cycle of every environment comes to, [B] each: places in the trace's menu."""

    drafts: Ints  # the plan whose rounds were run
    plans: Ints  # the plan whose tree is verified
    asked: Ints  # questions after the plan


class Market:
    """What a batch's cycle costs under some loads (sequences decoded together).

    together: a plan is that of a whole batch; otherwise every text counts on the others of its
    batch to do the same as it does.
    """

    def __init__(
        self, trace: Trace, costs: Costs, loads: Sequence[int], learned: bool,
        together: bool = False,
    ) -> None:  # fmt: skip
        self.trace, self.loads, self.costs = trace, list(loads), costs
        self.together = together
        self.bucket = grains(trace)
        prices: list[Prices] = [price(trace, costs, load) for load in self.loads]
        self.nodes = prices[0].nodes
        self.draft = np.stack([p.draft for p in prices])  # [loads, N, M]
        sizes = np.arange(1, int(self.nodes.max()) + 1)
        used = lengths(costs, np.arange(int(self.bucket.max()) + 1))
        self.branched = np.array([int(branches(plan)) for plan in trace.menu.plans])
        forms = np.array([False, True])[:, None, None]
        self.verify = np.stack(
            [costs.verifying(sizes, used[:, None], load, forms) for load in self.loads]
        )  # [loads, forms, contexts, nodes - 1]
        self.decide, self.ask = (
            np.array([price(load) if learned else 0.0 for load in self.loads])
            for price in (costs.deciding, costs.asking)
        )

    def seconds(self, at: Ints, cycles: Cycles, batches: Batches) -> Floats:
        """Every environment's share of its batch's cycle, [B]."""
        loads = batches.place[batches.starts]
        draft = batches.most(self.draft[batches.place, at, cycles.drafts])
        form = batches.most(self.branched[cycles.plans])
        nodes = self._paid(self.nodes[at, cycles.plans], batches)
        bucket = self._paid(self.bucket[at], batches).astype(np.int64)
        verify = self._verifying(loads, form, bucket, nodes)
        decide = self.decide[loads] + self.ask[loads] * cycles.asked[batches.starts]
        return batches.spread((draft + verify + decide) / batches.sizes)

    def _paid(self, sizes: NDArray, batches: Batches) -> NDArray:
        """[batches, any] the size, nodes or length, that all of a batch are paid as."""
        return batches.means(sizes) if self.costs.packed else batches.most(sizes)

    def _verifying(self, load: NDArray, form: NDArray, bucket: NDArray, nodes: NDArray) -> Floats:
        """Seconds of a batch's trees; between two sizes, as texts differ, in proportion."""
        low = np.floor(nodes).astype(np.int64)
        found: Floats = self.verify[load, form, bucket, low - 1]
        share = nodes - low
        if share.any():
            above = np.minimum(low, self.verify.shape[-1] - 1)
            found = found + share * (self.verify[load, form, bucket, above] - found)
        return found

    def savings(self, at: Ints, texts: Ints, batches: Batches) -> Floats:
        """[B, M] seconds that every plan saves against the text's pace.

        What a token is worth is what a text's tokens cost under the best static plan.
        """
        place, draft = batches.place[:, None], self.draft[batches.place, at]
        bucket, nodes = self.bucket[at][:, None], self.nodes[at]
        if self.together:
            draft = batches.spread(batches.most(draft))
            nodes = batches.spread(self._paid(nodes, batches))
            bucket = batches.spread(self._paid(bucket, batches)).astype(np.int64)
        verify = self._verifying(place, self.branched, bucket, nodes)
        whole = draft + verify + self.decide[place]
        worth = self.paces[place[:, 0], texts][:, None]
        return self.trace.committed[at] * worth - whole / batches.load[:, None]

    @cached_property
    def statics(self) -> Floats:
        """[loads, M, P] seconds of every text under every plan, its share of its batches'."""
        plans = range(len(self.trace.menu))
        return np.array([[self._static(i, m) for m in plans] for i in range(len(self.loads))])

    def _static(self, place: int, plan: int) -> Floats:
        """[P]; who else is in the batch is drawn from all of the plan's cycles."""
        trace, load = self.trace, self.loads[place]
        found, size = trace.visited(plan), load if self.together else 1
        drawn = np.random.default_rng(0).integers(len(found), size=(len(found), size))
        drawn[:, 0] = np.arange(len(found))
        none, plans = np.zeros(drawn.size, np.int64), np.full(drawn.size, plan)
        batches = Batches([size] * len(self.loads), np.full(len(found), place))
        seconds = self.seconds(found[drawn].reshape(-1), Cycles(plans, plans, none), batches)
        share = seconds[::size] * (size / load)
        return np.bincount(trace.text[found], share, len(trace.texts)).astype(np.float64)

    @cached_property
    def best(self) -> Ints:
        """[loads] the best static plans."""
        return self.statics.sum(2).argmin(1)

    @cached_property
    def usual(self) -> Floats:
        """[loads] seconds of a text's share of a cycle under each load's best static plan."""
        cycles = [len(self.trace.visited(plan)) for plan in self.best]
        return self.statics.sum(2).min(1) / cycles

    @cached_property
    def paces(self) -> Floats:
        """[loads, P] seconds per token of every text under each load's best static plan.

        The luck of a short text would be learned with it, so it is drawn towards that of all.
        """
        seconds = self.statics[np.arange(len(self.loads)), self.best]
        tokens = self.trace.count
        common = seconds.sum(1, keepdims=True) / tokens.sum()
        return (seconds + PRIOR * common) / (tokens + PRIOR)
