"""Trees of one text whose draft model grows them by itself, up to a question.

The same as `growers` does for any batch and any source, to the bit; the work is in `models.beam`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from spec_core.doubt import Doubt
from spec_core.growth import Growth
from spec_core.level import Drafting, LevelView
from spec_core.ranking import Ranker
from spec_core.tree import Grown, Tree

if TYPE_CHECKING:
    from spec_core.models.cache import SlotCache
    from spec_core.models.compiled import Arrays, CompiledModel
    from spec_core.recall import Past


class Beam:
    """The candidates of a text while they grow."""

    def __init__(
        self, model: CompiledModel, cache: SlotCache, past: Past, growth: Growth, rank: Ranker
    ) -> None:
        self.model, self.cache, self.growth, self.rank = model, cache, growth, rank
        self.past = past
        places, slots = len(growth.rounds[2]), growth.expanded
        self.tokens, self.scores = np.empty(places, np.int64), np.empty(places, np.float32)
        seen = np.zeros((slots, slots), bool)
        self.scores[0], seen[0, 0], self.level = 0, True, 0
        numbers = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self.pool = self.tokens, self.scores, *numbers, seen

    def grow(self, fed: list[int], length: int, doubt: Doubt | None) -> Drafting:
        """Behind a text's last tokens, which the cache lacks; asks after each level in doubt."""
        self.tokens[0], nodes = fed[-1], self.growth.budgets[0]
        while True:
            grown = self._further(fed, length, doubt)
            if not grown[1].size and (yield self._view())[0]:
                grown = self.model.harvest(self.pool, self.growth.rounds, self.level, nodes)
            if grown[1].size:
                return self._tree(*grown)

    def _further(self, fed: list[int], length: int, doubt: Doubt | None) -> Arrays:
        """To the next question that no judge answers, or to the end: the harvest."""
        floor, bar = (-math.inf, -math.inf) if doubt is None else doubt.logs
        growth, rank = self.growth, self.rank
        start = length, self.level, growth.best is not None, growth.budgets[0]
        least = growth.least
        self.level, rank.found, grown = self.model.beam(
            fed, self.pool, growth.rounds, rank.sound, start, (rank.temperature, least, floor, bar),
            doubt, self.past, self.cache,
        )  # fmt: skip
        return grown

    def _view(self) -> LevelView:
        """The newest level."""
        levels = self.growth.levels[: self.level]
        sizes = [1, *(level.width * level.children for level in levels)]
        pool = list(torch.from_numpy(self.scores[None, : sum(sizes)]).split(sizes, 1))
        numbers = [scores.tolist() for scores in pool]
        logs = torch.as_tensor(self.rank.found)
        return LevelView(self.level, pool[-1], levels[-1].width, pool, logs, numbers, [True])

    def _tree(self, numbers: np.ndarray, scores: np.ndarray, seen: np.ndarray) -> Tree:
        """The best nodes, without padding."""
        return Grown(numbers, scores, seen, min(len(self.growth.levels), scores.shape[1] - 1))
