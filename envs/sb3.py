"""A vector environment in the seat of Stable-Baselines3's VecEnv; knows no models."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

KEYS = (
    "tokens", "seconds", "accepted", "drafted", "depth", "cycles", "ended", "active", "prompt_id",
    "domain", "entry", "outcome",
)  # fmt: skip


class SB3VecEnv(VecEnv):
    """Any vector environment that resets in the same step; infos become one dict each."""

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"SB3 resets in the same step, this environment does not ({mode})")
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Reset all; a seed given with `seed()` is used once."""
        features, info = self.env.reset(seed=self._seeds[0])
        self.reset_infos = self._split(info)
        self._reset_seeds()
        self._reset_options()
        return features

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Step all; an ended episode's last features are in its info."""
        features, rewards, terminated, truncated, info = self.env.step(self.actions)
        infos, done = self._split(info), terminated | truncated
        for env, one in enumerate(infos):
            one["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
            if done[env]:
                one["terminal_observation"] = info["final_obs"][env]
        return features, rewards.astype(np.float32), done, infos

    def _split(self, info: dict[str, Any]) -> list[dict[str, Any]]:
        """One dict per environment of what there is."""
        found = {key: info[key].tolist() for key in KEYS if key in info}
        rows = zip(*found.values(), strict=True) if found else [()] * self.num_envs
        return [dict(zip(found, row, strict=True)) for row in rows]

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batch's attribute, once per environment asked for."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the attribute of the whole batch."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the batch's method once; an array of one row per environment is split."""
        made = getattr(self.env, method_name)(*method_args, **method_kwargs)
        rows = isinstance(made, (np.ndarray, tuple))
        return [made[i] if rows else made for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None
    ) -> list[bool]:
        """A batch has no wrappers per environment."""
        return [False for _ in self._get_indices(indices)]
