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
from policies.learners.supervised import Fitted
from spec_core.chooser import Chooser, Network


class FullInformation(Fitted):
    """Cost-sensitive regression on recordings: tokens - rate * seconds of all plans, where it goes.

    The rate is its own of late, so that its fixed point is the fastest policy. It follows its own
    choices (at random in a share of the cycles) and is fitted anew as positions are added.
    """

    heads = ("menu",)
    kept = ("memory", "weights", "biases", "due", "paid")

    def __init__(
        self, seat: Seat, seed: int = 0, exploring: float = 0.1, hidden: Sequence[int] = (64,),
        refit: int = 4096, updates: int = 600,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, exploring)
        self.hidden, self.refit, self.updates = tuple(hidden), refit, updates
        self.memory = Memory(seat.inputs + 2 * seat.choices)  # features, tokens, seconds
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        self.due, self.paid = np.array([refit]), np.zeros(2)
        self.everything: Any = None

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """As any learner, in an env that knows every plan's outcome."""
        self.everything = getattr(env.unwrapped, "outcomes", None)
        if self.everything is None:
            raise ValueError("this learner needs every plan's outcome: take env=replay")
        super().learn(env, steps, watch)

    def act(self, features: Array) -> Choices:
        """Remember what every plan would give; the best by the net in use, sometimes any."""
        tokens, seconds = self.everything()
        self.memory.add(np.hstack((features, tokens, seconds)))
        anything = self.random.integers(self.seat.choices, size=len(features))
        if not self.weights:
            return anything
        explore = self.random.random(len(features)) < self.exploring
        return np.where(explore, anything, Network(self.weights, self.biases).choose(features))

    def see(self, step: Step) -> None:
        """Follow the rate, and renew the net in use when it is due."""
        self.paid = 0.98 * self.paid + (step.told("tokens").sum(), step.told("seconds").sum())
        if self.steps >= self.due[0]:
            network = self.fit().network()
            self.weights, self.biases = network.weights, network.biases
            self.due = np.array([max(self.steps + self.refit, self.steps * 3 // 2)])

    def fit(self) -> Net:
        """Squared error of every plan's gain over the mean plan's."""
        rows, choices = self.memory.rows, self.seat.choices
        tokens, seconds = np.split(rows[:, self.seat.inputs :].astype(np.float64), [choices], 1)
        gains = tokens - self.paid[0] / max(self.paid[1], 1e-12) * seconds
        gains -= gains.mean(1, keepdims=True)
        target = torch.from_numpy((gains / max(gains.std(), 1e-9)).clip(-4, 4).astype(np.float32))

        def loss(outputs: Tensor, at: Tensor) -> Tensor:
            return (outputs - target[at]).square().mean()

        known = rows[:, : self.seat.inputs]
        return fit(known, loss, choices, self.hidden, self.seed, self.updates)

    def best(self, features: Array) -> Choices:
        """The largest output."""
        return self.net.predict(features).argmax(1)

    def chooser(self) -> Chooser:
        """The net."""
        return self.net.network()
