"""What a learner is, how it reports, and the seat it decides from; knows no way of learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from spec_core.chooser import Chooser
from spec_core.doubt import ALWAYS, Doubt
from spec_core.features import VERSION
from spec_core.learned import Chosen, MenuPolicy, StopPolicy, TrimPolicy
from spec_core.menu import Menu
from spec_core.plan import Plan

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
Choices = NDArray[np.int64]


HEADS = ("menu", "stop", "verify")
# Attributes that an env has beside gym's.
SAID = ("head", "menu", "plan", "budgets", "projections", "together", "doubt")


def check_head(learner: str, learns: tuple[str, ...], head: str) -> None:
    """Refuse a head that a learner does not learn."""
    if head not in learns:
        raise ValueError(
            f"{learner} learns the head {' or '.join(learns)}, not {head}; choose another learner "
            f"or head, such as env.head={learns[0]}"
        )


@dataclass(frozen=True)
class Progress:
    """How learning goes: all env steps so far, and what the recent ones gave."""

    steps: int
    reward: float  # mean of the recent, per finished cycle
    metrics: dict[str, float]


Watch = Callable[[Progress], bool | None]  # False ends learning; what it raises passes through


class Learner(Protocol):
    """Fits a policy to an env; where it stops it can be saved, and goes on from there."""

    steps: int  # env steps taken so far, over all envs

    def learn(self, env: VectorEnv, steps: int, watch: Watch) -> None:
        """Reset the env and go on until `self.steps >= steps` or `watch` returns False."""

    def best(self, features: Array) -> Choices:
        """Its own decision on every row, without exploring."""

    def policy(self) -> Chosen:
        """A snapshot of what was learned: deterministic, exportable, the same as `best`."""

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on, in one atomic step."""

    def restore(self, folder: Path) -> None:
        """Take over what was saved by the same learner in the same seat."""


@dataclass(frozen=True)
class Seat:
    """What there is to decide: the head, the floats it reads, the choices and their meaning."""

    head: str
    inputs: int
    choices: int
    num_envs: int
    menu: Menu | None
    plan: Plan | None
    budgets: tuple[int, ...]
    projections: int
    together: bool = False  # one decision for a whole batch
    doubt: Doubt = ALWAYS  # levels that are asked about

    @classmethod
    def of(cls, env: VectorEnv) -> Seat:
        """The seat that a vector env offers."""
        features: Any = env.single_observation_space
        actions: Any = env.single_action_space
        told = {name: getattr(env.unwrapped, name, None) for name in SAID}
        head = told["head"] or "menu"
        if head not in HEADS:
            raise ValueError(f"the env's head {head!r} is none of {', '.join(HEADS)}")
        if told["menu" if head == "menu" else "plan"] is None:
            raise ValueError(f"the env does not say what it decides: it needs {', '.join(SAID)}")
        return cls(
            head, int(features.shape[0]), int(actions.n), env.num_envs, told["menu"], told["plan"],
            tuple(told["budgets"] or ()), told["projections"] or 0, bool(told["together"]),
            told["doubt"] or ALWAYS,
        )  # fmt: skip

    @property
    def gamma(self) -> float:
        """The discount: 1 inside a cycle, 0 between cycles."""
        return float(self.head == "stop")

    @property
    def key(self) -> str:
        """Two seats with the same key take the same policies."""
        menu = self.menu.key if self.menu is not None and self.head == "menu" else None
        rest = (self.plan, self.budgets) if self.head != "menu" else ()
        band = self.doubt.pair if self.head == "stop" else ""
        whole = " together" * self.together
        sizes = f"{self.inputs} {self.choices} {self.projections}"
        return f"{self.head} {sizes} v{VERSION} {menu} {rest}{whole}{band}"

    def policy(self, chooser: Chooser) -> Chosen:
        """The policy that this chooser makes in this seat."""
        if self.head == "menu":
            assert self.menu is not None
            return MenuPolicy(self.menu, chooser, self.projections, self.together)
        assert self.plan is not None
        if self.head == "stop":
            return StopPolicy(self.plan, chooser, self.projections, self.doubt)
        return TrimPolicy(self.plan, list(self.budgets), chooser, self.projections)
