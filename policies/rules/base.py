"""What the rules share: one plan for everybody, and how a rule is written. Knows no rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policies.rules.export import write
from spec_core.menu import read_plan
from spec_core.plan import Plan
from spec_core.policy import Silent

if TYPE_CHECKING:
    from spec_core.doubt import Doubt
    from spec_core.level import LevelView
    from spec_core.session import Observation

Array = NDArray[np.float64]


def planned(**fields: Any) -> Plan:
    """The plan of these fields; ValueError where one is of the wrong kind."""
    return read_plan(fields)


class Rule(Silent):
    """Asks for one plan; subclasses say when to stop, how much to verify, what to learn."""

    name = ""  # set by `make_rule`, with the arguments
    arguments: dict[str, Any]

    def __init__(self, plan: Plan) -> None:
        self.plan_ = plan

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan, once per sequence."""
        return [self.plan_] * observation.batch

    def state(self) -> dict[str, Any]:
        """What was learned, as JSON; nothing for most."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        assert not state, "this rule learns nothing"

    def save(self, folder: str | Path) -> None:
        """Write policy.json; `load_policy` reads it back once `policies` is imported."""
        write(self, folder)


class ChainRule(Rule):
    """A chain that ends behind the first token which the rule doubts."""

    levels: bool | Doubt = True

    def __init__(self, depth: int) -> None:
        super().__init__(planned(depth=depth, budget=depth + 1))


def steps(level: LevelView) -> list[float]:
    """Log probability of each chain's newest token; -inf where a sequence has none."""
    before, newest = level.numbers[-2:]
    return [n[0] - b[0] if n[0] > -math.inf else n[0] for n, b in zip(newest, before, strict=True)]
