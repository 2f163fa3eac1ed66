"""Learners by name: what fits a policy to a vector env; each is imported when it is asked for."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from gymnasium.vector import VectorEnv

from policies.learners.base import HEADS, Learner, Progress, Seat, Watch, check_head

__all__ = ["LEARNERS", "Learner", "Progress", "Seat", "Watch", "checked", "make_learner"]

LEARNERS = {
    "ppo": "policies.learners.sb3.algorithms:PPO",
    "maskable_ppo": "policies.learners.sb3.algorithms:MaskablePPO",
    "a2c": "policies.learners.sb3.algorithms:A2C",
    "dqn": "policies.learners.sb3.algorithms:DQN",
    "ucb1": "policies.learners.bandits:Ucb1",
    "exp3": "policies.learners.bandits:Exp3",
    "gaussian_thompson": "policies.learners.bandits:GaussianThompson",
    "binned_thompson": "policies.learners.contextual:BinnedThompson",
    "table": "policies.learners.by_load:ByLoad",
    "linucb": "policies.learners.contextual:LinUcb",
    "adaeagle": "policies.learners.supervised:AdaEagle",
    "full_information": "policies.learners.full:FullInformation",
    "regression": "policies.learners.supervised:Regression",
    "specdec_pp": "policies.learners.stopping:SpecDecPP",
    "fitted_marginal": "policies.learners.stopping:FittedMarginal",
}


def make_learner(name: str, env: VectorEnv, seed: int = 0, **arguments: Any) -> Learner:
    """The learner of that name for this env; it learns when `learn` is called."""
    return checked(name, arguments)(Seat.of(env), seed, **arguments)


def checked(name: str, arguments: Iterable[str] = (), head: str | None = None) -> Any:
    """The class of that name, if it takes these arguments, and learns that head."""
    if name not in LEARNERS:
        raise ValueError(_unknown("learner", name, list(LEARNERS)))
    module, _, attribute = LEARNERS[name].partition(":")
    try:
        made = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(f"learner {name} needs the package {error.name}; install it") from None
    known = list(inspect.signature(made).parameters)[2:]  # behind seat and seed
    for argument in arguments:
        if argument not in known:
            raise ValueError(_unknown(f"argument of {name}", argument, known))
    if head is not None:
        check_head(name, getattr(made, "heads", HEADS), head)
    return made


def _unknown(what: str, given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{given!r} is no {what}{hint} (known: {', '.join(known) or 'none'})"
