"""The loop over a vector env, for learners that act and learn step by step.

Knows gymnasium's vector API; knows no engine and no RL library.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from policies.learners.base import Array, Choices, Progress, Seat, Watch, Wide, check_head
from policies.learners.state import read_state, write_state
from spec_core.chooser import Chooser
from spec_core.learned import Chosen

REPORT = 256  # env steps between two calls of `watch`
MEMORY = 100_000  # latest rows that are kept
SUMS = ("steps", "reward", "cycles", "tokens", "seconds")


@dataclass
class Step:
    """One step of all envs; arrays [num_envs, ...]."""

    features: Array  # before the actions
    actions: Choices
    active: NDArray[np.bool_]  # whose action made a difference; the others waited
    rewards: Wide
    ended: NDArray[np.bool_]
    infos: dict[str, Any]

    def told(self, name: str) -> Wide:
        """A number of the cycles that were paid in this step; 0 where none was."""
        return np.asarray(self.infos[name], np.float64)


def active(infos: dict[str, Any], num_envs: int) -> NDArray[np.bool_]:
    """Whose next action makes a difference; everybody's in an env that does not say."""
    return np.array(infos.get("active", np.ones(num_envs)), bool)


@dataclass
class Recent:
    """Sums since the last report."""

    head: str
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def add(self, step: Step) -> None:
        """Count a step."""
        self.sums["steps"] += len(step.actions)
        self.sums["reward"] += float(step.rewards.sum())
        self.sums["cycles"] += step.ended.sum() if self.head == "stop" else len(step.actions)
        for name in ("tokens", "seconds"):
            if name in step.infos:
                self.sums[name] += float(step.told(name).sum())

    def report(self, steps: int, metrics: dict[str, float]) -> Progress:
        """Say it and begin anew."""
        sums, self.sums = self.sums, dict.fromkeys(SUMS, 0.0)
        if sums["seconds"] > 0:
            metrics = {"tokens_per_second": sums["tokens"] / sums["seconds"], **metrics}
        return Progress(steps, sums["reward"] / max(sums["cycles"], 1), metrics)


class Memory:
    """The latest rows of numbers; adding one is cheap."""

    def __init__(self, width: int) -> None:
        self._rows, self._new = np.zeros((0, width), np.float32), list[Array]()

    def add(self, rows: np.ndarray) -> None:
        """Put rows [n, width] behind the others."""
        assert rows.shape[1] == self._rows.shape[1]
        self._new.append(rows.astype(np.float32))

    @property
    def rows(self) -> Array:
        """All of them, [n, width]."""
        if self._new:
            self._rows = np.vstack((self._rows, *self._new))[-MEMORY:]
            self._new = []
        return self._rows

    @rows.setter
    def rows(self, rows: Array) -> None:
        self._rows, self._new = rows, []


class Loop:
    """A learner that acts and learns step by step; subclasses say how.

    What `kept` names, arrays, lists of them or a Memory, is all of their state.
    """

    heads: tuple[str, ...] = ("menu", "verify")
    kept: tuple[str, ...] = ()

    def __init__(self, seat: Seat, seed: int = 0) -> None:
        check_head(type(self).__name__, self.heads, seat.head)
        self.seat, self.seed, self.steps = seat, seed, 0
        self.random = np.random.default_rng(seed)

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """Reset the env and go on until `self.steps >= steps` or `watch` returns False."""
        known, infos = env.reset()
        self.begin(env.num_envs)
        recent = Recent(self.seat.head)
        while self.steps < steps:
            features, acting = np.array(known, np.float32), active(infos, env.num_envs)
            actions = self.act(features)
            known, rewards, ended, cut, infos = env.step(actions)
            over, paid = np.logical_or(ended, cut), np.array(rewards, np.float64)
            step = Step(features, actions, acting, paid, over, infos)
            self.see(step)
            recent.add(step)
            self.steps += env.num_envs
            if recent.sums["steps"] >= REPORT or self.steps >= steps:
                if watch(recent.report(self.steps, self.metrics())) is False:
                    return

    def begin(self, num_envs: int) -> None:
        """The env was reset."""

    def act(self, features: Array) -> Choices:
        """What to do now, exploring."""
        raise NotImplementedError

    def see(self, step: Step) -> None:
        """Learn from a step."""
        raise NotImplementedError

    def best(self, features: Array) -> Choices:
        """Its own decision on every row, without exploring."""
        raise NotImplementedError

    def chooser(self) -> Chooser:
        """The same decisions as an object that can be exported."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What is worth a curve."""
        return {}

    def policy(self) -> Chosen:
        """A snapshot of what was learned."""
        return self.seat.policy(self.chooser())

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on."""
        state = {name: _tensors(getattr(self, name)) for name in self.kept}
        generator = json.dumps(self.random.bit_generator.state)
        write_state(folder, self, {"steps": self.steps, "random": generator, **state})

    def restore(self, folder: Path) -> None:
        """Take over what was saved."""
        state = read_state(folder, self)
        self.steps = state["steps"]
        self.random.bit_generator.state = json.loads(state["random"])
        for name in self.kept:
            _set(self, name, state[name])


def _tensors(value: Any) -> Any:
    if isinstance(value, Memory):
        value = value.rows
    return [*map(_tensors, value)] if isinstance(value, list) else torch.from_numpy(value.copy())


def _arrays(value: Any) -> Any:
    return [*map(_arrays, value)] if isinstance(value, list) else value.numpy().copy()


def _set(learner: Loop, name: str, value: Any) -> None:
    kept = getattr(learner, name)
    if isinstance(kept, Memory):
        kept.rows = _arrays(value)
    else:
        setattr(learner, name, _arrays(value))
