"""Buffers that leave out the steps in which an env waited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer

from policies.learners.sb3.env import Seated


class Waiting(RolloutBuffer):
    """Rollouts without the steps in which an env waited; rewards still pass through those."""

    def __init__(self, *args: Any, source: Seated, **rest: Any) -> None:
        self.source = source
        super().__init__(*args, **rest)

    def reset(self) -> None:
        """Begin a rollout."""
        self.acting = np.ones((self.buffer_size, self.n_envs), bool)
        super().reset()

    def add(self, *args: Any, **rest: Any) -> None:
        """Note who acted."""
        self.acting[self.pos] = self.source.acted
        super().add(*args, **rest)

    def get(self, batch_size: int | None = None) -> Iterator[Any]:  # type: ignore[override]
        """Minibatches of the others; everything, if nobody acted at all."""
        first = super().get(self.buffer_size * self.n_envs)
        next(first)  # flattens the arrays
        rows = np.flatnonzero(self.acting.T.reshape(-1))
        rows = np.random.permutation(rows if len(rows) else self.acting.size)
        size = batch_size or len(rows)
        for start in range(0, len(rows), size):
            yield self._get_samples(rows[start : start + size])


class MaskedWaiting(Waiting, MaskableRolloutBuffer):  # type: ignore[misc]
    """The same with masks."""


class WaitingReplay(ReplayBuffer):
    """One row per action that counted; inside a cycle, later rewards are its rewards too."""

    def __init__(self, size: int, *spaces: Any, source: Seated, carry: bool, **rest: Any) -> None:
        super().__init__(size, *spaces, **{**rest, "n_envs": 1})
        self.source, self.carry = source, carry
        self.open: dict[int, list[Any]] = {}  # by env: observation, action and reward so far

    def add(self, obs, next_obs, action, reward, done, infos) -> None:  # type: ignore[no-untyped-def]
        """A row is added when it is known what came next."""
        for i, acted in enumerate(self.source.acted):
            if acted:
                self._close(i, obs[i], False)
                self.open[i] = [obs[i].copy(), action[i].copy(), float(reward[i])]
            elif i in self.open and self.carry:
                self.open[i][2] += float(reward[i])
            if done[i]:
                self._close(i, next_obs[i], True)

    def _close(self, i: int, following: np.ndarray, done: bool) -> None:
        if i in self.open:
            obs, action, reward = self.open.pop(i)
            told = [np.array([x]) for x in (obs, following, action, reward, done)]
            super().add(told[0], told[1], told[2], told[3], told[4], [{}])
