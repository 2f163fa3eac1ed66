"""What all environments share: Gymnasium's two faces of an engine. Knows no models, no recordings.

An engine steps B environments at once and resets ended episodes itself; the single environment is
the batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs import books
from envs.together import Together

Features = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
SAME_STEP: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}


class Shell:
    """An engine with its spaces, what it decides, and its state."""

    engine: Any

    def _begin(self, engine: Any) -> None:
        self.engine, head = engine, engine.head
        self.together = isinstance(engine, Together)
        self.head = head.name  # what is decided, as learners ask for it
        self.menu, self.plan, self.budgets, self.doubt = (
            getattr(head, part, None) for part in ("menu", "plan", "budgets", "doubt")
        )
        self.one_observation = spaces.Box(-np.inf, np.inf, (engine.size,), np.float32)
        self.one_action = spaces.Discrete(head.choices)
        self._face()

    def told(self, figures: NDArray[np.float64]) -> Columns:
        """The columns of figures; those of whole batches are means."""
        return books.told(figures, whole=not self.together)

    def named(self, ids: Sequence[str], domains: Sequence[str]) -> Columns:
        """The columns that name prompts; whole batches have none."""
        names = {"prompt_id": ids, "domain": domains}
        return {} if self.together else {k: np.array(v, object) for k, v in names.items()}

    def _face(self) -> None:
        """The spaces as Gymnasium wants them."""
        raise NotImplementedError

    def _first(self) -> Columns:
        """What the info of a reset holds, [B] each."""
        raise NotImplementedError

    def _columns(self, step: Any) -> Columns:
        """What a step's info holds, [B] each: the step just taken, but for `active` (the next)."""
        raise NotImplementedError

    @property
    def rate(self) -> float:
        """Tokens per second of late."""
        return self.engine.books.speed.value

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON; texts under way are not kept."""
        return self.engine.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the texts after those of `state`; call `reset()` next, without a seed."""
        self.engine.restore(state)


class Single(Shell, gymnasium.Env[Features, Any]):
    """The only environment of an engine."""

    def _face(self) -> None:
        self.observation_space, self.action_space = self.one_observation, self.one_action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """The next episode; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        features = self.engine.reset(seed)[0]
        return features.copy(), {k: column[0] for k, column in self._first().items()}

    def step(self, action: Any) -> tuple[Features, float, bool, bool, dict[str, Any]]:
        """Take a decision."""
        step = self.engine.step(np.asarray(action).reshape(-1))
        over = bool(step.over[0])
        seen = step.final if over else step.features
        info = {name: column[0] for name, column in self._columns(step).items()}
        return seen[0].copy(), float(step.rewards[0]), over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """[choices]: actions worth taking now."""
        return self.engine.masks[0].copy()


class Several(Shell, VectorEnv[Features, Any, NDArray]):
    """All environments of an engine.

    Ended episodes begin anew in the same step: see `final_obs` and `final_info`.
    """

    metadata = SAME_STEP

    def _face(self) -> None:
        self.num_envs = self.engine.num_envs
        self.single_observation_space = self.one_observation
        self.single_action_space = self.one_action
        self.observation_space = batch_space(self.one_observation, self.num_envs)
        self.action_space = batch_space(self.one_action, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """The next episodes of all; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise ValueError("the environments are reset together, without a mask")
        return self.engine.reset(seed).copy(), masked(self._first(), self.num_envs)

    def step(self, actions: Any) -> tuple[Features, NDArray, NDArray, NDArray, dict[str, Any]]:
        """Take a decision for each."""
        step = self.engine.step(np.asarray(actions).reshape(-1))
        made = self._columns(step)
        info = masked(made, self.num_envs)
        if step.over.any():
            info["final_obs"] = np.full(self.num_envs, None, object)
            for env in step.over.nonzero()[0]:
                info["final_obs"][env] = step.final[env].copy()
            info["final_info"] = masked(made, self.num_envs, step.over)
            info["_final_obs"], info["_final_info"] = step.over.copy(), step.over.copy()
        never = np.zeros(self.num_envs, bool)
        return step.features.copy(), step.rewards, step.over.copy(), never, info

    def action_masks(self) -> NDArray[np.bool_]:
        """[B, choices]: actions worth taking now."""
        return self.engine.masks.copy()


def masked(made: Columns, num_envs: int, mask: NDArray | None = None) -> dict[str, Any]:
    """Columns beside the masks `_name` of who has them, as Gymnasium's vector infos are."""
    have = np.ones(num_envs, bool) if mask is None else mask
    return {k: column.copy() for k, column in made.items()} | {f"_{k}": have.copy() for k in made}
