"""`SpecDecodeReplay-v0`: recorded decoding at measured prices, as one environment or as many.

Spaces, infos, rewards and resets are those of `SpecDecode-v0` with the menu head; no model is
loaded, and no outcome is in the infos. Both classes are thin shells over one engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.cost import Costs
from envs.live import masked
from envs.replayed import Replay, Step
from envs.rewards import Reward, make_reward
from envs.trace import Trace
from spec_core.menu import Menu

METADATA: dict[str, Any] = {"render_modes": []}
VECTOR_METADATA = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}


def make_replay(
    num_envs: int, trace: Trace | str | Path, costs: Costs | str | Path,
    menu: Menu | Sequence[Any] | None = None, reward: str | Reward = "tokens_per_second",
    loads: Sequence[int] = (1,), seed: int = 0, noise: bool = False, learned: bool = True,
) -> Replay:  # fmt: skip
    """The engine of a replay environment; see `ReplayEnv` for the options."""
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}")
    trace = trace if isinstance(trace, Trace) else Trace.read(trace)
    costs = costs if isinstance(costs, Costs) else Costs.read(costs)
    if menu is not None:
        menu = menu if isinstance(menu, Menu) else Menu.of(menu)
        trace = trace if trace.menu == menu else trace.with_menu(menu)
    paid = make_reward(reward, num_envs)
    return Replay(trace, costs, num_envs, paid, loads, seed, noise, learned)


def columns(engine: Replay, step: Step) -> dict[str, NDArray]:
    """What a step's info holds, [B] each: the step just taken, but for `active` (the next)."""
    whole = ("tokens", "accepted", "drafted", "depth")
    made = {name: step.figures[name].astype(np.int64) for name in whole}
    made |= {"seconds": step.figures["seconds"], "cycles": np.ones(engine.num_envs, np.int64)}
    return made | {"ended": step.over} | _texts(engine, step.texts) | _active(engine)


def first_columns(engine: Replay) -> dict[str, NDArray]:
    """What the info of a reset holds, [B] each."""
    return _texts(engine, engine.texts) | _active(engine)


def _texts(engine: Replay, texts: NDArray) -> dict[str, NDArray]:
    names = engine.names[texts]
    return {"prompt_id": names[:, 0], "domain": names[:, 1]}


def _active(engine: Replay) -> dict[str, NDArray]:
    return {"active": engine.masks.sum(1) > 1}


class Shell:
    """What the single and the vector environment share."""

    engine: Replay

    @property
    def rate(self) -> float:
        """Tokens per second of late."""
        return self.engine.speed.value

    @property
    def menu(self) -> Menu:
        """The plans that actions choose from."""
        return self.engine.trace.menu

    def savings(self) -> NDArray:
        """[B, plans] seconds that every plan saves over the best static one, to the texts' ends."""
        return self.engine.savings()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON; texts under way are not kept."""
        return self.engine.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the texts after those of `state`; call `reset()` next, without a seed."""
        self.engine.restore(state)

    def _spaces(self) -> tuple[spaces.Box, spaces.Discrete]:
        box = spaces.Box(-np.inf, np.inf, (self.engine.size,), np.float32)
        return box, spaces.Discrete(len(self.engine.trace.menu))


class ReplayEnv(Shell, gymnasium.Env[NDArray[np.float32], Any]):
    """One recorded text at a time; a step is a cycle.

    trace, costs: objects, or where `envs.record` and `envs.calibrate` wrote them. menu: other
    plans than the recorded ones, as far as its candidates serve them. reward: a name, or an object
    of envs.rewards. loads: sizes of the batches that environments are in (vector environments
    only, but for the first). noise: seconds vary as the measured ones did. learned: a learned
    policy's own seconds are charged. seed: of the order of the texts.
    """

    metadata = METADATA

    def __init__(
        self, trace: Trace | str | Path, costs: Costs | str | Path, render_mode: None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        self.engine = make_replay(1, trace, costs, **options)
        one_observation, one_action = self._spaces()
        self.observation_space: spaces.Space = one_observation
        self.action_space: spaces.Space = one_action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The next text; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        features = self.engine.reset(seed)[0]
        return features, {k: column[0] for k, column in first_columns(self.engine).items()}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run a cycle with this plan."""
        step = self.engine.step(np.asarray(action).reshape(-1))
        over = bool(step.over[0])
        seen = step.final if over else step.features
        info = {name: column[0] for name, column in columns(self.engine, step).items()}
        return seen[0], float(step.rewards[0]), over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """[M]: plans worth taking now."""
        return self.engine.masks[0]


class ReplayVectorEnv(Shell, VectorEnv[NDArray[np.float32], Any, NDArray]):
    """Many recorded texts at once; options are those of `ReplayEnv`.

    Ended texts begin anew in the same step: see `final_obs` and `final_info`.
    """

    metadata = VECTOR_METADATA

    def __init__(
        self, trace: Trace | str | Path, costs: Costs | str | Path, num_envs: int = 1,
        render_mode: None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.engine = make_replay(num_envs, trace, costs, **options)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self._spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The next texts of all; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise ValueError("the environments are reset together, without a mask")
        return self.engine.reset(seed), masked(first_columns(self.engine), self.num_envs)

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray, NDArray, NDArray, dict[str, Any]]:
        """Run a cycle of each."""
        step = self.engine.step(np.asarray(actions).reshape(-1))
        made = columns(self.engine, step)
        info = masked(made, self.num_envs)
        if step.over.any():
            info["final_obs"] = np.full(self.num_envs, None, object)
            for env in step.over.nonzero()[0]:
                info["final_obs"][env] = step.final[env]
            info["final_info"] = masked(made, self.num_envs, step.over)
            info["_final_obs"], info["_final_info"] = step.over.copy(), step.over.copy()
        return step.features, step.rewards, step.over, np.zeros(self.num_envs, bool), info

    def action_masks(self) -> NDArray[np.bool_]:
        """[B, M]: plans worth taking now."""
        return self.engine.masks
