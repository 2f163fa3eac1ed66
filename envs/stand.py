"""A batch of texts at which parts of a cycle are timed, again and again; knows no tables."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from spec_core.clock import now
from spec_core.decoder import SpeculativeDecoder
from spec_core.pair import Pair
from spec_core.plan import AUTOREGRESSIVE, Plan
from spec_core.policy import Policy
from spec_core.session import cycle
from spec_core.tree import Tree

SPARE = 80  # tokens that a measured text may still grow
MOST = 256  # nodes of a measured tree


class Stand:
    """A batch of texts of one length at which cycles are measured and undone again."""

    def __init__(self, pair: Pair, batch: int, context: int, temperature: float) -> None:
        chance = random.Random(0)
        vocab, self.pair, self.context = pair.target.vocab_size, pair, context
        texts = [[chance.randrange(vocab) for _ in range(context)] for _ in range(batch)]
        decoder = SpeculativeDecoder(pair, max_nodes=MOST)
        self.session = decoder.open(texts, SPARE, temperature, ignore_eos=True)
        self.batch, self.tokens = batch, torch.tensor(texts, device=pair.target.device)

    def draft(self, plan: Plan) -> float:
        """Seconds of growing trees."""
        start = self._ready()
        for _ in self.session.draft([plan] * self.batch):
            raise AssertionError("nobody asked")
        return self._ready() - start

    def verify(self, tree: Tree) -> float:
        """Seconds of verifying trees and keeping what was accepted."""
        for _ in self.session.draft([AUTOREGRESSIVE] * self.batch):
            raise AssertionError("nobody asked")
        start = self._ready()
        self.session.verify(tree)
        return self._ready() - start

    def rest(self, policy: Policy) -> float:
        """Seconds of a cycle outside of drafting and verifying."""
        start = self._ready()
        seconds = cycle(self.session, policy).seconds
        return self._ready() - start - seconds.draft - seconds.verify - seconds.commit

    def _undo(self) -> None:
        """Back to where the texts began."""
        for row, sequence in enumerate(self.session.active):
            del sequence.tokens[self.context :]
            if self.session.drafting is not None:
                self.session.drafting.commit(row, self.context - 1, [])

    def undone(self, measure: Callable[[], float]) -> float:
        """Measure, and leave the texts as they were."""
        try:
            return measure()
        finally:
            self._undo()

    def _ready(self) -> float:
        if self.pair.target.device.type == "cuda":
            torch.cuda.synchronize()
        return now()

    def tree(self, nodes: int) -> Tree:
        """Trees of so many nodes: each node has two children."""
        if nodes == 1:
            return Tree.roots(self.tokens[:, -1:])
        index = torch.arange(nodes, device=self.tokens.device).expand(self.batch, -1)
        depths = (index + 1).float().log2().floor().long()
        return Tree(
            (self.tokens[:, -1:] + index) % self.pair.target.vocab_size,
            ((index - 1) // 2).clamp(min=0), depths, -depths.float(),
            torch.full_like(index, -1), depth=int(depths.max()),
        )  # fmt: skip
