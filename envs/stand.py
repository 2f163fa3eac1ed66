"""A batch of texts at which parts of a cycle are timed, again and again; knows no tables."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from spec_core.clock import now
from spec_core.cycles import cycle
from spec_core.decoder import SpeculativeDecoder
from spec_core.doubt import Doubt
from spec_core.drafters.lm import prefill
from spec_core.pair import Pair
from spec_core.plan import AUTOREGRESSIVE, Plan
from spec_core.policy import Policy
from spec_core.tree import Grown, Line, Tree

SPARE = 80  # tokens that a measured text may still grow
MOST = 256  # nodes of a measured tree


class Stand:
    """A batch of texts of one length at which cycles are measured and undone again."""

    def __init__(
        self, pair: Pair, texts: list[list[int]], nodes: int, temperature: float, cache: Any = None
    ) -> None:  # fmt: skip
        """cache: the target's, filled for longer texts; None: one's own, to be filled."""
        self.pair, self.batch, self.context = pair, len(texts), len(texts[0])
        self.tokens = torch.tensor(texts, device=pair.target.device)
        decoder = SpeculativeDecoder(pair, max_nodes=nodes)
        room, short = self.context + SPARE - 1, [text[:1] for text in texts]
        self.session = session = decoder.open(short, room, temperature, ignore_eos=True)
        if cache is None:  # what is in the slots does not matter, that it was written does
            cache = session.store
            prefill(pair.target, cache.rows(0, 1), 0, texts[0], 0)
            for row in range(1, self.batch):
                cache.copy_row(0, row, self.context)
        session.store = session.cache = cache
        for sequence, text in zip(session.sequences, texts, strict=True):
            sequence.tokens[:] = text
        self.undone(lambda: self.draft(Plan(1)))  # the drafter reads the texts

    def draft(self, plan: Plan) -> float:
        """Seconds of growing trees."""
        self._pass()
        start = self._ready()
        for _ in self.session.draft([plan] * self.batch):
            raise AssertionError("nobody asked")
        return self._ready() - start

    def asked(self, policy: Policy, levels: bool | Doubt) -> float:
        """Seconds of growing trees under a policy that is asked after these levels."""
        self._pass()
        plans = policy.plan(self.session.observe())
        start, answer = self._ready(), None
        growing = self.session.draft(plans, levels)
        with suppress(StopIteration):
            while True:
                answer = policy.stop(growing.send(answer))  # type: ignore[arg-type]
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
        self._pass()
        start = self._ready()
        seconds = cycle(self.session, policy).seconds
        return self._ready() - start - seconds.draft - seconds.verify - seconds.commit

    def _pass(self) -> None:
        """Send the target's weights through the caches, as a cycle finds them: it is dearer so."""
        for _ in self.session.draft([AUTOREGRESSIVE] * self.batch):
            raise AssertionError("nobody asked")
        self.session.score(self.tree(1))

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
            return self.line(1)
        index = torch.arange(nodes, device=self.tokens.device).expand(self.batch, -1)
        depths = (index + 1).float().log2().floor().long()
        tokens = (self.tokens[:, -1:] + index) % self.pair.target.vocab_size
        numbers = (tokens, ((index - 1) // 2).clamp(min=0), depths, torch.full_like(index, -1))
        made = Tree(*numbers[:3], -depths.float(), numbers[3], depth=int(depths.max()))
        if self.batch > 1 or not tokens.is_cpu:
            return made
        parts = made.scores.numpy(), made.ancestors.numpy(), made.depth
        return Grown(torch.stack(numbers).numpy(), *parts)

    def line(self, nodes: int) -> Tree:
        """Trees of so many nodes, each under the one before: what comes of drafting a chain."""
        index = torch.arange(nodes, device=self.tokens.device).expand(self.batch, -1)
        tokens, scores = (self.tokens[:, -1:] + index) % self.pair.target.vocab_size, -index.float()
        held = max(nodes - 1, 0)
        if self.batch == 1 and tokens.is_cpu:
            return Line(tokens[0].tolist(), scores[0].tolist(), held)
        return Tree.line(tokens, scores, held)


def stands(
    pair: Pair, batch: int, contexts: list[int], nodes: int, temperature: float
) -> list[Stand]:
    """A stand per text length; they share the target's cache, the largest thing there is."""
    chance, vocab, made = random.Random(0), pair.target.vocab_size, list[Stand]()
    texts = [[chance.randrange(vocab) for _ in range(max(contexts))] for _ in range(batch)]
    for context in sorted(contexts, reverse=True):
        cache = made[0].session.store if made else None
        made.append(Stand(pair, [t[:context] for t in texts], nodes, temperature, cache))
    return made
