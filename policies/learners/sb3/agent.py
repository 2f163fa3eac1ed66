"""What SB3's algorithms share behind the learners' interface.

Observations and rewards are normalised by running statistics, which the export folds into the
first layer. Steps in which an env waited are not learned from.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.logger import Logger
from torch import nn

from policies.learners.base import Array, Choices, Seat, Watch
from policies.learners.networks import folded
from policies.learners.sb3.env import Normalised, Seated
from policies.learners.sb3.randomness import Randomness
from policies.learners.state import read_state, write_state
from spec_core.chooser import Network
from spec_core.learned import Chosen


class Agent:
    """What the algorithms share; a subclass makes its model and names its decision layers."""

    algorithm: Any
    counters: tuple[str, ...] = ("num_timesteps", "_n_updates")

    def __init__(self, seat: Seat, seed: int, hidden: Sequence[int], **options: Any) -> None:
        if min(hidden, default=1) < 1:
            raise ValueError(f"hidden holds the widths of layers, at least 1 each, not {hidden}")
        self.seat, self.random, self.env = seat, Randomness(), Seated(seat)
        self.normal = Normalised(self.env, seat.gamma)
        policy: dict[str, Any] = {"net_arch": list(hidden), "activation_fn": nn.Tanh}
        with self.random(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of rollouts that batches do not divide
            self.model = self.algorithm(
                "MlpPolicy", self.normal, gamma=seat.gamma, policy_kwargs=policy, seed=seed,
                device="cpu", **self.buffers(), **options,
            )  # fmt: skip
        self.model.set_logger(Logger(None, []))

    @property
    def steps(self) -> int:
        """Env steps taken so far, over all envs."""
        return self.model.num_timesteps

    def buffers(self) -> dict[str, Any]:
        """Arguments that make the algorithm's buffer."""
        raise NotImplementedError

    @property
    def chunk(self) -> int:
        """Env steps after which the model has learned from what it has seen."""
        raise NotImplementedError

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """Reset the env and go on until `self.steps >= steps` or `watch` returns False."""
        self.env.attach(env)
        self.model.set_env(self.normal, force_reset=True)
        while self.steps < steps:
            with self.random():
                self.model.learn(self.chunk, log_interval=None, reset_num_timesteps=False)
            told = self.model.logger.name_to_value.items()
            metrics = {name: float(value) for name, value in told}
            if watch(self.env.recent.report(self.steps, metrics)) is False:
                return

    def layers(self) -> list[nn.Linear]:
        """From observations to one score per choice."""
        raise NotImplementedError

    def best(self, features: Array) -> Choices:
        """Its own decision on every row, without exploring."""
        known = self.normal.normalize_obs(features)
        return self.model.predict(known, deterministic=True)[0]

    def chooser(self) -> Network:
        """The same decisions on raw features."""
        rms: Any = self.normal.obs_rms
        return folded(self.layers(), rms.mean, np.sqrt(rms.var + self.normal.epsilon))

    def policy(self) -> Chosen:
        """A snapshot of what was learned."""
        return self.seat.policy(self.chooser())

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on."""
        model = self.model
        actions = model.action_space.np_random.bit_generator.state
        state = {"policy": model.policy.state_dict(), "more": self.more()}
        state["optimizer"] = model.policy.optimizer.state_dict()
        state["normal"], state["random"] = self.normal.numbers(), self.random.numbers()
        state["counters"] = {name: getattr(model, name) for name in self.counters}
        write_state(folder, self, {**state, "actions": json.dumps(actions)})

    def restore(self, folder: Path) -> None:
        """Take over what was saved."""
        state, model = read_state(folder, self), self.model
        model.policy.load_state_dict(state["policy"])
        model.policy.optimizer.load_state_dict(state["optimizer"])
        self.normal.take(state["normal"])
        self.random.take(state["random"])
        model.action_space.np_random.bit_generator.state = json.loads(state["actions"])
        for name, value in state["counters"].items():
            setattr(model, name, value)
        self.take(state["more"])

    def more(self) -> dict[str, Any]:
        """What only this algorithm keeps."""
        return {}

    def take(self, more: dict[str, Any]) -> None:
        """The reverse."""
