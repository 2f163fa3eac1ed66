"""The walk with noise keyed by (seed, position): the text is a function of prompt and seed alone.

At every node the target's token is argmax(logits / T + noise at that position), greedy at T = 0;
the walk goes on while a child carries that token. Whatever was drafted, the text is the same.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from spec_core.ranking import Ranker
from spec_core.rows import rows
from spec_core.tree import Tree
from spec_core.verifiers.base import Chance, Verdict


class Coupled:
    """The default verifier; `coupled` adds the target's noise to the draft's ranking as well."""

    sampled = False

    def __init__(self, coupled: bool = True) -> None:
        self.coupled = coupled

    def prepare(self, chance: Chance, depth: int) -> None:
        """The noise, which the window then holds."""
        if not chance.sampling.greedy:
            chance.target(depth + 1)

    def ranker(self, chance: Chance, depth: int) -> Ranker:
        """Rank by the draft's probability, after the noise where coupled."""
        if chance.sampling.greedy:
            return Ranker()
        if not self.coupled:
            return Ranker(chance.sampling.temperature)
        return Ranker(chance.sampling.temperature, chance.target(depth + 1))

    def accept(self, logits: Any, tree: Tree, chance: Chance) -> Verdict:
        """Pick the target's token at every node and follow the picks from the root."""
        sampling = chance.sampling
        noise = None if sampling.greedy else chance.target(tree.depth + 1)
        near = True
        if isinstance(logits, Tensor):
            logits, near = logits.float(), logits.is_cpu
        verdict = Verdict([], [], [], [], [])
        for path, slots, tokens, drafted, finite in rows(near).walk(logits, tree, noise, sampling):
            verdict.path.append(path)
            verdict.slots.append(slots)
            verdict.tokens.append(tokens)
            verdict.drafted.append(drafted)
            verdict.finite.append(finite)
        return verdict
