"""Chains that end where the draft doubts itself; no learning, no costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.rules.base import ChainRule, steps
from spec_core.doubt import Doubt, bars
from spec_core.facts import address
from spec_core.features import entropy

if TYPE_CHECKING:
    from spec_core.drafting import LevelView


class Doubtful(ChainRule):
    """Stops behind a token of a log probability below `least`, or drawn with more entropy."""

    def __init__(self, depth: int, least: float = -math.inf, most: float = math.inf) -> None:
        super().__init__(depth)
        self.bars = bars(least, most)
        self.levels = Doubt(judge=self._judge)

    def _judge(self) -> tuple:
        """The same for machine code."""
        return self.bars

    def stop(self, level: LevelView) -> list[bool]:
        """Those whose newest token was drawn in doubt."""
        (least, most), logs = self.bars[0][0].tolist(), level.near
        return [
            step < least or (most < math.inf and entropy(address(logs, b), logs.shape[-1]) > most)
            for b, step in enumerate(steps(level))
        ]


class Entropy(Doubtful):
    """SVIP (arXiv 2411.18462): stop behind a token whose draft distribution was too uncertain.

    It stops where sqrt(entropy in nats) > threshold. Defaults are the published code's: it tests
    sqrt(0.15 entropy) > 0.3, which is 0.775 here, and drafts 40 tokens at most.
    """

    def __init__(self, threshold: float = 0.3 / 0.15**0.5, depth: int = 40) -> None:
        assert threshold >= 0, f"threshold is a square root, not {threshold}"
        super().__init__(depth, most=threshold**2)


class Confidence(Doubtful):
    """transformers' `assistant_confidence_threshold`: stop behind a token of low probability.

    Defaults are transformers': threshold 0.4, 20 tokens at most.
    """

    def __init__(self, threshold: float = 0.4, depth: int = 20) -> None:
        assert 0 <= threshold <= 1, f"threshold is a probability, not {threshold}"
        super().__init__(depth, least=math.log(threshold) if threshold else -math.inf)
