"""Draft sources that have no logits and that may know nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from small import VOCAB, Mixed, target
from texts import EVERY, PLANS, PROMPTS, SAMPLINGS, plain, run

from spec_core import Fixed, Pair, SpeculativeDecoder
from spec_core.drafters.base import Candidates, DraftState, Frontier, Rank
from spec_core.features import level_features
from spec_core.tree import NOTHING
from spec_core.verifiers.rejection import Rejection


class Table(DraftState):
    """A drafter of successors: it has no logits, and nothing behind every third token."""

    vocab_size, max_context = VOCAB, 10_000

    def __init__(self, texts: list[list[int]]) -> None:
        self.behind: dict[int, list[int]] = {}
        self.missed = 0
        for token, following in (edge for text in texts for edge in pairwise(text)):
            if token % 3 and following not in self.behind.setdefault(token, []):
                self.behind[token].append(following)

    def open(self, batch: int, slots: int, greedy: bool = True) -> Table:
        return self

    def start(self, texts: list[list[int]], rank: Rank) -> Candidates:
        return self._found([[text[-1]] for text in texts], rank.count)

    def expand(self, frontier: Frontier, rank: Rank) -> Candidates:
        return self._found(frontier.tokens.tolist(), rank.count)

    def _found(self, nodes: list[list[int]], count: int) -> Candidates:
        known = [[self.behind.get(token, [])[:count] for token in row] for row in nodes]
        self.missed += sum(not tokens for row in known for tokens in row)
        padded = [[t + [NOTHING] * (count - len(t)) for t in row] for row in known]
        tokens = torch.tensor(padded)
        chances = (tokens != NOTHING) / 2.0 ** torch.arange(1, count + 1)
        return Candidates(tokens, chances.log())


class Reading(Mixed):
    """Reads what learned policies read at a level."""

    def stop(self, level):
        assert np.isfinite(level_features(level)).all()
        return super().stop(level)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sampling", ["greedy", "hot"])
def test_a_drafter_that_misses_gives_the_plain_text(sampling, batch):
    right, prompts = [plain("auto", sampling, i) for i in range(batch)], PROMPTS[:batch]
    table = Table([text + new for text, new in zip(PROMPTS, right, strict=False)])
    pair, options = Pair(target(), table), SAMPLINGS[sampling]
    policies = {name: Fixed(plan) for name, plan in PLANS.items()}
    policies |= {"mixed": Mixed(EVERY, trims=True), "levels": Reading(EVERY, levels=True)}
    for name, policy in policies.items():
        found = run(pair, policy, prompts, **options)
        assert found.tokens == right, name
        assert found.stats.accepted or name in ("autoregressive", "nothing passes")
    assert table.missed


@pytest.mark.parametrize(("batch", "misses"), [(1, True), (3, True), (3, False)])
def test_rejection_wants_logits(batch, misses):
    table, prompts = Table([[1, 2, 4, 1], [11, 1]]), [[1], [2], [11]][:batch]
    table.misses = misses
    for policy in (Fixed(PLANS["chain"]), Fixed(PLANS["beam"]), Reading(EVERY[1:2], levels=True)):
        decoder = SpeculativeDecoder(Pair(target(), table), policy, Rejection())
        with pytest.raises(ValueError, match="no logits, from which rejection draws"):
            decoder.generate(prompts, temperature=1.0)
        table.misses = True
        assert decoder.generate(prompts, max_new_tokens=4).tokens  # greedy needs none
