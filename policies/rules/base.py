"""What the rules share: one plan for everybody, and how a rule is written. Knows no rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from policies.rules.export import write
from spec_core.menu import read_plan
from spec_core.plan import Plan
from spec_core.policy import Silent

if TYPE_CHECKING:
    from spec_core.doubt import Doubt
    from spec_core.session import Observation

Array = NDArray[np.float64]


def planned(**fields: Any) -> Plan:
    """The plan of these fields; ValueError where one is of the wrong kind."""
    return read_plan(fields)


def host(tensor: Tensor) -> Array:
    """The numbers where numpy can reach them; `tolist` is faster for a few."""
    return tensor.cpu().numpy().astype(np.float64)


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


def steps(pool: list[Tensor]) -> list[float]:
    """Log probability of each chain's newest token; -inf where a sequence has none."""
    newest, before = pool[-1][:, 0].tolist(), pool[-2][:, 0].tolist()
    return [n - b if n > -math.inf else n for n, b in zip(newest, before, strict=True)]
