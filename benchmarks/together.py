"""One decision for a whole batch: the replay environment by batches, and the policy to go with it.

A batch waits for its longest draft and its largest tree, so a text that decides for itself is paid
by all others: decisions by batch carry their own price. What is seen is the mean of the texts'.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.cost import Costs, price
from envs.replay import ReplayVectorEnv
from envs.rewards import Rate
from envs.trace import Trace


class Together:
    """A chooser that reads the mean of a batch's features and chooses for all of it."""

    def __init__(self, chooser: Any) -> None:
        self.chooser = chooser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chooser, name)

    def choose(self, features: NDArray, load: int | None = None) -> NDArray:
        """The same for every `load` rows that follow each other; None: for all rows."""
        size = load or len(features)
        means = features.reshape(-1, size, features.shape[1]).mean(1)
        return np.repeat(self.chooser.choose(means), size)


class BatchEnv(VectorEnv[NDArray, Any, NDArray]):
    """Batches of several loads on a recording, one decision each; episodes never end.

    The reward is tokens - lambda * seconds, per text, with each load's own running lambda: one for
    all would call every cycle at a low load slow, and every one at a high load fast.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, trace: Trace, costs: Costs, worth: dict[int, float], rounds: int = 1
    ) -> None:  # fmt: skip
        """worth: tokens per second of the best static plan, by load."""
        loads = tuple(worth)
        self.texts = ReplayVectorEnv(trace, costs, rounds * sum(loads), loads=loads)
        self.trace, self.costs, self.menu = trace, costs, trace.menu
        self.sizes = np.tile(loads, rounds)
        self.starts, self.num_envs = np.cumsum(self.sizes) - self.sizes, len(self.sizes)
        self.prices = {load: price(trace, costs, load) for load in loads}
        self.rates, self.worth = {load: Rate() for load in loads}, worth
        self.single_observation_space = self.texts.single_observation_space
        self.single_action_space = self.texts.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _sums(self, values: NDArray) -> NDArray:
        """[batches, ...] sums over each one's texts."""
        return np.add.reduceat(values, self.starts)

    def _means(self, features: NDArray) -> NDArray:
        return (self._sums(features) / self.sizes[:, None]).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """All batches on their first texts."""
        return self._means(self.texts.reset(seed=seed)[0]), {}

    def step(self, actions: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray, dict[str, Any]]:
        """A cycle of every batch."""
        known, _, _, _, info = self.texts.step(np.repeat(np.asarray(actions), self.sizes))
        tokens, seconds = self._sums(info["tokens"]), self._sums(info["seconds"])
        rewards, never = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for load, rate in self.rates.items():
            mine = self.sizes == load
            rate.add(tokens[mine], seconds[mine])
            rewards[mine] = (tokens[mine] - rate.value * seconds[mine]) / load
        told = {"tokens": tokens, "seconds": seconds}
        return self._means(known), rewards, never, never.copy(), told

    def savings(self) -> NDArray:
        """[batches, plans] tokens per text that a plan of all of a batch gains on the best static.

        A second is worth the tokens that the best static plan makes in it.
        """
        at = self.texts.engine.at
        tokens = self._sums(self.trace.committed[at])
        made = np.empty((self.num_envs, len(self.menu)))
        for load, prices in self.prices.items():
            mine = np.flatnonzero(self.sizes == load)
            rows = at[self.starts[mine, None] + np.arange(load)]  # [batches of this load, load]
            longest = self.trace.lengths[rows].max(1)[:, None]
            verify = self.costs.verifying(prices.nodes[rows].max(1), longest, load)
            seconds = prices.draft[rows].max(1) + verify
            made[mine] = (tokens[mine] - self.worth[load] * seconds) / load
        return made
