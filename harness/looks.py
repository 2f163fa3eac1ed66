"""What a policy is worth while it is learned: its speed on dev, or by the prices on recordings.

Knows no learners: policies in, tokens per second out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.cost import Costs, price
from envs.oracle import static
from envs.runs import run, run_fixed, run_policy
from envs.trace import Trace
from harness.evaluation import Bench, Prompt
from harness.leaning import UPRIGHT, Lean, able, leans
from harness.tuning import speeds
from spec_core.policy import Policy

# A policy -> what is worth keeping of it, its speed, and the best static plan's.
Look = Callable[[Any], tuple[Any, float, float]]
EVERY = 5  # one text of so many is held out of a recording


def on_dev(bench: Bench, fixed: Policy, prompts: list[Prompt], lean: Lean = UPRIGHT) -> Look:
    """By the clock."""

    def look(policy: Any) -> tuple[Any, float, float]:
        kept = lean(policy)
        found = speeds(bench, {"static": fixed, "learned": kept}, prompts)
        return kept, found["learned"], found["static"]

    return look


class OnRecordings:
    """By the prices, on texts that nothing is learned from: the noise of the clock is none.

    A menu's network may lean towards the best static plan of the texts that are learned from: by
    nothing, by something, or until it takes no other, whatever is fastest.
    """

    def __init__(self, learned: Trace, held: Trace, costs: Costs) -> None:
        self.held, self.costs, self.lean = held, costs, UPRIGHT
        best = static(learned, price(learned, costs, 1).seconds).pooled
        self.plan, self.base = held.menu.names[best], run_fixed(held, costs, best).speed

    def __call__(self, policy: Any) -> tuple[Any, float, float]:
        """The policy as it leans best."""
        if not able(policy) or self.plan not in policy.menu.names:
            self.lean = UPRIGHT
            return policy, run_policy(self.held, self.costs, policy).speed, self.base
        seen: list[Any] = []

        def choose(features: Any) -> Any:
            seen.append(features.copy())
            return policy.chooser.choose(features)

        run(self.held.with_menu(policy.menu), self.costs, choose)
        found = leans(policy, policy.menu.names.index(self.plan), np.concatenate(seen))
        speed = {lean: run_policy(self.held, self.costs, lean(policy)).speed for lean in found}
        self.lean = max(found, key=lambda lean: speed[lean])
        return self.lean(policy), speed[self.lean], self.base
