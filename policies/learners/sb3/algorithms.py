"""SB3's algorithms, with defaults for thousands of cycles instead of millions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sb3_contrib
import stable_baselines3
import torch
from gymnasium.vector import VectorEnv
from torch import nn

from policies.learners.base import Seat, Watch
from policies.learners.loop import REPORT
from policies.learners.sb3.agent import Agent
from policies.learners.sb3.buffers import MaskedWaiting, Waiting, WaitingReplay


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
    """Proximal policy optimisation (Schulman et al. 2017).

    rollout, batch_size: None suits the number of envs, few live ones or hundreds of recorded ones;
    larger batches take larger steps.
    """

    algorithm: Any = stable_baselines3.PPO

    def __init__(
        self, seat: Seat, seed: int = 0, hidden: Sequence[int] = (64, 64),
        rollout: int | None = None, batch_size: int | None = None, epochs: int = 10,
        learning_rate: float = 1e-3, entropy: float = 0.01, clip: float = 0.2,
    ) -> None:  # fmt: skip
        rollout = max(512, 32 * seat.num_envs) if rollout is None else rollout
        batch_size = max(128, rollout // 8) if batch_size is None else batch_size
        super().__init__(
            seat, seed, rollout, hidden=hidden, batch_size=batch_size, n_epochs=epochs,
            learning_rate=learning_rate * (batch_size / 128) ** (1 / 3), ent_coef=entropy,
            clip_range=clip,
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
    counters = ("num_timesteps", "_n_updates", "_n_calls", "exploration_rate")
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
