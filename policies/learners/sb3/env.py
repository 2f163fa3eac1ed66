"""A vector env in the seat of SB3's VecEnv, and the running normalisation in front of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from policies.learners.base import Seat
from policies.learners.loop import Recent, Step, active
from policies.learners.networks import FLOOR


class Seated(VecEnv):
    """The env that is attached; it must reset in the same step. `acted`: who acted last."""

    env: VectorEnv
    render_mode = None

    def __init__(self, seat: Seat) -> None:
        self.seat, self.recent = seat, Recent(seat.head)
        self.acted = self.acting = np.ones(seat.num_envs, bool)
        features = spaces.Box(-np.inf, np.inf, (seat.inputs,), np.float32)
        super().__init__(seat.num_envs, features, spaces.Discrete(seat.choices))

    def attach(self, env: VectorEnv) -> None:
        """Act in this env from now on."""
        found, seat = Seat.of(env), self.seat
        if (found.key, found.num_envs) != (seat.key, seat.num_envs):
            raise ValueError(
                f"the learner was made for {seat.num_envs} envs of {seat.key}, "
                f"this is {found.num_envs} of {found.key}; make a new one"
            )
        self.env = env

    def reset(self) -> Any:
        """Reset all; where that begins is the env's matter."""
        self.known, infos = self.env.reset()
        self.acting = active(infos, self.num_envs)
        return np.array(self.known, np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Step all; an ended episode's last features are in its info."""
        known, rewards, ended, cut, infos = self.env.step(self.actions)
        over, paid = np.logical_or(ended, cut), np.array(rewards, np.float64)
        self.recent.add(Step(self.known, self.actions, self.acting, paid, over, infos))
        self.known, self.acted, self.acting = known, self.acting, active(infos, self.num_envs)
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(over) if "final_obs" in infos else ():
            told[i]["terminal_observation"] = infos["final_obs"][i]
            told[i]["TimeLimit.truncated"] = bool(cut[i] and not ended[i])
        return np.array(known, np.float32), paid.astype(np.float32), over, told

    def close(self) -> None:
        """Close the env."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batch's attribute, once per env asked for."""
        source = self if attr_name == "render_mode" else self.env.unwrapped
        return [getattr(source, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the attribute of the whole batch."""
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the batch's method once; it gives one row per env."""
        rows = getattr(self.env.unwrapped, method_name)(*method_args, **method_kwargs)
        return [rows[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """A batch has no wrappers per env."""
        return [False for _ in self._get_indices(indices)]


class Normalised(VecNormalize):
    """Running normalisation; where cycles stand alone, rewards are centred as well."""

    def __init__(self, seated: Seated, gamma: float) -> None:
        super().__init__(seated, gamma=gamma, epsilon=FLOOR**2)
        self.clip_obs = np.inf  # what is clipped cannot be folded into a layer

    def normalize_reward(self, reward: np.ndarray) -> np.ndarray:
        """Less the mean, unless it would pay for longer episodes."""
        return super().normalize_reward(reward - self.ret_rms.mean * (self.gamma == 0))

    def numbers(self) -> dict[str, Any]:
        """The statistics, to be saved."""
        kept = {"obs": self.obs_rms, "ret": self.ret_rms}
        return {
            f"{key}_{name}": torch.as_tensor(np.array(getattr(rms, name)))
            for key, rms in kept.items() for name in ("mean", "var", "count")
        }  # fmt: skip

    def take(self, numbers: dict[str, Any]) -> None:
        """The reverse."""
        for name, value in numbers.items():
            key, part = name.split("_")
            rms: Any = self.obs_rms if key == "obs" else self.ret_rms
            setattr(rms, part, value.numpy().copy())
