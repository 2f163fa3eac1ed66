"""What a policy is worth while it is learned: its speed on dev, or by the prices on recordings.

Knows no learners: policies in, tokens per second out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envs.cost import Costs, price
from envs.oracle import static
from envs.runs import run_fixed, run_policy
from envs.trace import Trace
from harness.evaluation import Bench, Prompt
from harness.tuning import speeds
from spec_core.policy import Policy

Look = Callable[[Any], tuple[float, float]]  # a policy -> its speed, and the best static plan's
EVERY = 5  # one text of so many is held out of a recording


def on_dev(bench: Bench, fixed: Policy, prompts: list[Prompt]) -> Look:
    """By the clock."""

    def look(policy: Any) -> tuple[float, float]:
        found = speeds(bench, {"static": fixed, "learned": policy}, prompts)
        return found["learned"], found["static"]

    return look


def on_recordings(learned: Trace, held: Trace, costs: Costs) -> Look:
    """By the prices, on texts that nothing is learned from: the noise of the clock is none."""
    best = static(learned, price(learned, costs, 1).seconds).pooled
    base = run_fixed(held, costs, best).speed

    def look(policy: Any) -> tuple[float, float]:
        return run_policy(held, costs, policy).speed, base

    return look
