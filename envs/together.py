"""One decision for each whole batch of an engine whose environments are texts.

A batch waits for its longest draft and its largest tree, so a text that decides for itself is paid
by all others. What is seen of a batch is the mean of its texts; its episodes never end, as an ended
text's place is taken by the next one. Knows no models and no recordings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.market import Batches, Floats
from spec_core.features import Array, together


class Together:
    """The engine's batches as environments; rewards and figures are per text."""

    def __init__(self, engine: Any, batches: Batches) -> None:
        if engine.head.name != "menu":
            raise ValueError(f"a batch decides together with head=menu, not {engine.head.name}")
        self.engine, self.first_batches, self.num_envs = engine, batches, len(batches.sizes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    @property
    def batches(self) -> Batches:
        """As they are now: an engine may deal them anew after a step."""
        return getattr(self.engine, "batches", self.first_batches)

    def reset(self, seed: int | None = None) -> Array:
        """All batches begin with texts of their own."""
        return self._seen(self.engine.reset(seed))

    def step(self, actions: NDArray[np.int64]) -> Any:
        """Take one decision per batch and run its cycle."""
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must be {self.num_envs} whole numbers, not {actions}")
        means = self.batches.means
        step = self.engine.step(self.batches.spread(actions))
        seen, never = self._seen(step.features), np.zeros(self.num_envs, bool)
        return replace(
            step, features=seen, rewards=means(step.rewards), over=never,
            figures=means(step.figures.T).T, final=np.zeros_like(seen),
        )  # fmt: skip

    def _seen(self, features: Array) -> Array:
        return together(features, self.batches.starts)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """[batches, choices] what is worth taking for any of a batch's texts."""
        return self.batches.most(self.engine.masks)

    def savings(self) -> Floats:
        """[batches, choices] what each plan saves a whole batch, in usual cycles of its load."""
        loads, market = self.batches.place[self.batches.starts], self.engine.market
        return self.batches.means(self.engine.savings()) / market.usual[loads][:, None]
