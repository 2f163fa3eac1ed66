"""Stable-Baselines3's algorithms behind the learners' interface.

Observations and rewards are normalised by running statistics, which the export folds into the
first layer. Steps in which an env waited are not learned from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.logger import Logger
from torch import nn

from policies.learners.base import Array, Choices, Seat, Watch
from policies.learners.loop import REPORT
from policies.learners.networks import folded
from policies.learners.sb3.buffers import MaskedWaiting, Waiting, WaitingReplay
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
        with self.random():
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


class OnPolicy(Agent):
    """Learns from rollouts of `rollout` env steps, over all envs."""

    buffer: type = Waiting

    def __init__(self, seat: Seat, seed: int, rollout: int, **options: Any) -> None:
        if rollout < 2:
            raise ValueError(f"rollout counts env steps, at least 2, not {rollout}")
        # Whole returns and many cycles per rollout: what waiting is worth is not learned.
        self.length = max(16 if seat.head == "stop" else 2, rollout // seat.num_envs)
        super().__init__(seat, seed, n_steps=self.length, gae_lambda=1.0, **options)

    def buffers(self) -> dict[str, Any]:
        """A rollout buffer that knows who waited."""
        return {
            "rollout_buffer_class": self.buffer,
            "rollout_buffer_kwargs": {"source": self.env},
        }

    @property
    def chunk(self) -> int:
        """One rollout."""
        return self.length * self.seat.num_envs

    def layers(self) -> list[nn.Linear]:
        """The policy's own, and the action layer."""
        policy = self.model.policy
        return [*_linear(policy.mlp_extractor.policy_net), policy.action_net]


class PPO(OnPolicy):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    algorithm: Any = stable_baselines3.PPO

    def __init__(
        self, seat: Seat, seed: int = 0, hidden: Sequence[int] = (64, 64), rollout: int = 512,
        batch_size: int = 128, epochs: int = 10, learning_rate: float = 1e-3,
        entropy: float = 0.01, clip: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(
            seat, seed, rollout, hidden=hidden, batch_size=batch_size, n_epochs=epochs,
            learning_rate=learning_rate, ent_coef=entropy, clip_range=clip,
        )  # fmt: skip


class MaskablePPO(PPO):
    """PPO that never tries plans which do not fit; the env has `action_masks()`."""

    algorithm = sb3_contrib.MaskablePPO
    buffer = MaskedWaiting


class A2C(OnPolicy):
    """Advantage actor critic: one gradient step per small rollout."""

    algorithm = stable_baselines3.A2C

    def __init__(
        self, seat: Seat, seed: int = 0, hidden: Sequence[int] = (64, 64), rollout: int = 32,
        learning_rate: float = 5e-3, entropy: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(
            seat, seed, rollout, hidden=hidden, learning_rate=learning_rate, ent_coef=entropy,
            normalize_advantage=True,
        )  # fmt: skip


class DQN(Agent):
    """Deep Q-learning (Mnih et al. 2015); explores less and less over `exploring_steps`."""

    algorithm = stable_baselines3.DQN
    counters = ("num_timesteps", "_n_updates", "_n_calls")
    columns = ("observations", "next_observations", "actions", "rewards", "dones")

    def __init__(
        self, seat: Seat, seed: int = 0, hidden: Sequence[int] = (64, 64),
        learning_rate: float = 1e-3, memory: int = 50_000, batch_size: int = 128,
        start: int = 256, exploring_steps: int = 3000, exploring: float = 0.05,
        target_update: int = 500,
    ) -> None:  # fmt: skip
        rounds = max(1, 16 // seat.num_envs)  # of all envs, between trainings
        super().__init__(
            seat, seed, hidden, learning_rate=learning_rate, buffer_size=memory,
            batch_size=batch_size, learning_starts=start, train_freq=rounds,
            gradient_steps=max(1, rounds * seat.num_envs // 4),
            target_update_interval=target_update,
        )  # fmt: skip
        self.model.exploration_schedule = lambda _: max(
            exploring, 1 - (1 - exploring) * self.steps / max(exploring_steps, 1)
        )

    def buffers(self) -> dict[str, Any]:
        """A replay buffer that knows who waited."""
        options = {"source": self.env, "carry": self.seat.head == "stop"}
        return {"replay_buffer_class": WaitingReplay, "replay_buffer_kwargs": options}

    @property
    def chunk(self) -> int:
        """A few hundred steps."""
        return REPORT

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """As ever; actions before the reset have no sequel."""
        self.model.replay_buffer.open.clear()
        super().learn(env, steps, watch)

    def layers(self) -> list[nn.Linear]:
        """Those of the Q network."""
        return _linear(self.model.policy.q_net.q_net)

    def more(self) -> dict[str, Any]:
        """The replay buffer."""
        memory = self.model.replay_buffer
        size = memory.size()
        rows = {name: torch.from_numpy(getattr(memory, name)[:size]) for name in self.columns}
        return {"pos": memory.pos, "full": memory.full, **rows}

    def take(self, more: dict[str, Any]) -> None:
        """The replay buffer."""
        memory = self.model.replay_buffer
        memory.pos, memory.full = more["pos"], more["full"]
        for name in self.columns:
            rows = more[name].numpy()
            getattr(memory, name)[: len(rows)] = rows


def _linear(net: nn.Module) -> list[nn.Linear]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
