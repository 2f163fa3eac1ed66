"""Learning with full information: where every plan's outcome is known, none has to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from policies.learners.base import Array, Choices, Seat, Watch
from policies.learners.loop import Memory, Step
from policies.learners.networks import Net, fit
from policies.learners.supervised import Regression


class FullInformation(Regression):
    """Regression of the seconds that every choice saves, on recordings, where that is known.

    A token is worth what the best static plan needs for one in that text; one more draft level
    is compared with none. It follows its own choices (at random in a share of the cycles) and is
    fitted anew as it goes.
    """

    heads = ("menu", "stop")

    def __init__(
        self, seat: Seat, seed: int = 0, exploring: float = 0.1,
        hidden: Sequence[int] = (64, 64), refit: int = 4096, updates: int = 3000,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, exploring, hidden, refit, updates)
        self.memory = Memory(seat.inputs + seat.choices)  # features, milliseconds saved
        self.savings: Any = None

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """As any learner, in an env that knows every plan's outcome."""
        self.savings = getattr(env.unwrapped, "savings", None)
        if self.savings is None:
            raise ValueError("this learner needs every plan's outcome: take env=replay")
        super().learn(env, steps, watch)

    def act(self, features: Array) -> Choices:
        """Look up what every choice would save; the best by the net in use, sometimes any."""
        self.saved = 1e3 * self.savings()
        return super().act(features)

    def explores(self, num_envs: int) -> np.ndarray:
        """In menus the same environments: the others come to where the net's own choices lead."""
        if self.seat.head == "stop":
            return super().explores(num_envs)
        return np.random.default_rng(self.seed).random(num_envs) < self.exploring

    def see(self, step: Step) -> None:
        """Remember that, whatever was chosen, and renew the net in use when it is due."""
        self.memory.add(np.hstack((step.features, self.saved))[step.active])
        self.renew(3 / 2)

    def fit(self) -> Net:
        """Squared error of all plans' savings, without outliers."""
        rows = self.memory.rows
        saved = rows[:, self.seat.inputs :].astype(np.float64)
        scaled = (saved / max(saved.std(), 1e-9)).clip(-4, 4)
        target = torch.from_numpy(scaled.astype(np.float32))

        def loss(outputs: Tensor, at: Tensor) -> Tensor:
            return (outputs - target[at]).square().mean()

        known = rows[:, : self.seat.inputs]
        return fit(known, loss, self.seat.choices, self.hidden, self.seed, self.updates)
