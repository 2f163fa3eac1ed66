"""Menu policies that need a reason to leave the best static plan; knows no learners, no clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spec_core.chooser import Network
from spec_core.learned import MenuPolicy

ALL = 100.0  # times the largest lead: other plans lead to other features
SHARES = (0.25, 0.5, 0.75, 0.9)  # of the departures from the plan that are tried without


class Lean(NamedTuple):
    """So much is added to the score of one plan."""

    plan: int = 0
    amount: float = 0.0

    def __call__(self, policy: Any) -> Any:
        """The policy that leans."""
        if not self.amount or not able(policy):
            return policy
        network = policy.chooser
        last = network.biases[-1].copy()
        last[self.plan] += np.float32(self.amount)
        made = Network(network.weights, [*network.biases[:-1], last], network.activation)
        return MenuPolicy(policy.menu, made, policy.extractor.projections, policy.together)


UPRIGHT = Lean()


def able(policy: Any) -> bool:
    """Whether it has scores for plans."""
    return isinstance(policy, MenuPolicy) and type(policy.chooser) is Network


def leans(policy: MenuPolicy, plan: int, features: NDArray[np.float32]) -> list[Lean]:
    """None, and those by which shares, then all, of these decisions go back to the plan."""
    scores = policy.chooser.scores(features)  # type: ignore[attr-defined]
    leads = scores.max(1) - scores[:, plan]
    leads = leads[leads > 0]
    if not len(leads):
        return [Lean()]
    amounts = [*np.quantile(leads, SHARES).tolist(), ALL * float(leads.max())]
    return [Lean(), *(Lean(plan, amount) for amount in dict.fromkeys(amounts) if amount > 0)]
