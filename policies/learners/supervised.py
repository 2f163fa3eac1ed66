"""Learners that regress on what cycles showed: accepted lengths, or what each choice was worth.

Their models are fitted from scratch and are functions of the remembered rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from policies.learners.base import Array, Choices, Seat
from policies.learners.loop import Loop, Memory, Step
from policies.learners.networks import Net, fit
from spec_core.chooser import Chooser, Network
from spec_core.plan import Plan

NEVER = -1e6  # a length that no prediction comes near: that of plans that are no chains


class Fitted(Loop):
    """Remembers rows and fits a net to them when it is asked for."""

    def __init__(self, seat: Seat, seed: int, exploring: float) -> None:
        super().__init__(seat, seed)
        if not 0 <= exploring <= 1:
            raise ValueError(f"exploring is a share, 0 to 1, not {exploring}")
        self.exploring = exploring
        self._fitted: tuple[int, Net | None] = (-1, None)

    def fit(self) -> Net:
        """A net that knows all rows."""
        raise NotImplementedError

    @property
    def net(self) -> Net:
        """The net of now."""
        steps, net = self._fitted
        if net is None or steps != self.steps:
            if not self.steps:
                raise ValueError("nothing was seen yet; learn first, then ask for the policy")
            net = self.fit()
            self._fitted = (self.steps, net)
        return net


class AdaEagle(Fitted):
    """Length regression (AdaEAGLE): how many tokens of a deep chain would be accepted.

    It drafts the menu's deepest chain, and any chain in a share of the cycles, so that it also
    sees what follows short ones. A chain that was accepted whole says only "at least".
    """

    heads = ("menu",)
    kept = ("memory",)

    def __init__(
        self, seat: Seat, seed: int = 0, under: float = 3.0, exploring: float = 0.1,
        hidden: Sequence[int] = (32,), updates: int = 600,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, exploring)
        assert seat.menu is not None
        plans = seat.menu.plans
        self.lengths = [float(p.depth) if is_chain(p) else NEVER for p in plans]
        self.chains = [i for i, length in enumerate(self.lengths) if length > 0]
        if not self.chains:
            raise ValueError("adaeagle needs chains in the menu, such as chain-8; add some")
        self.deepest = max(self.chains, key=lambda i: (plans[i].depth, -plans[i].threshold))
        self.under, self.hidden, self.updates = under, tuple(hidden), updates
        self.memory = Memory(seat.inputs + 2)  # features, accepted, 1 if all of it was

    def act(self, features: Array) -> Choices:
        """The deepest chain, sometimes another."""
        any_chain = self.random.choice(self.chains, len(features))
        explore = self.random.random(len(features)) < self.exploring
        return np.where(explore, any_chain, self.deepest)

    def see(self, step: Step) -> None:
        """Remember accepted lengths."""
        accepted, depth = step.told("accepted"), step.told("depth")
        made = np.column_stack((step.features, accepted, accepted >= depth))
        self.memory.add(made[step.active])

    def fit(self) -> Net:
        """L1 on lengths, `under` times as much below; nothing above those accepted whole."""
        rows = self.memory.rows
        label, censored = torch.from_numpy(rows[:, -2:].T.copy())

        def loss(outputs: Tensor, at: Tensor) -> Tensor:
            missing = label[at] - outputs[:, 0]
            beyond = (1 - censored[at]) * (-missing).clamp(min=0)
            return (self.under * missing.clamp(min=0) + beyond).mean()

        start = float(np.median(rows[:, -2]))
        known = rows[:, :-2]
        return fit(known, loss, 1, self.hidden, self.seed, self.updates, start=start)

    def best(self, features: Array) -> Choices:
        """The chain whose depth is nearest to the prediction; ar is the chain of depth 0."""
        return self.chooser().choose(features)

    def chooser(self) -> Network:
        """The prediction against the depths."""
        return nearest(self.net.network(), self.lengths)

    def metrics(self) -> dict[str, float]:
        """Of the newest rows."""
        accepted, censored = self.memory.rows[-1024:, -2:].mean(0)
        return {"accepted": float(accepted), "censored": float(censored)}


def nearest(network: Network, values: Sequence[float]) -> Network:
    """Chooses the value nearest to the one number x that a network predicts.

    Of |x - v| the least is of 2 v x - v^2 the largest, and that is a layer.
    """
    assert network.outputs == 1, "it predicts one number"
    wanted = np.array(values, np.float32)[:, None]
    *weights, last = network.weights
    *biases, start = network.biases
    weights.append(2 * wanted * last)
    biases.append((2 * wanted * start - wanted**2)[:, 0])
    return Network(weights, biases, network.activation)


def is_chain(plan: Plan) -> bool:
    """Whether the plan drafts one token per level; ar is a chain of none."""
    chain = plan.width == 1 and plan.children in (0, 1) and plan.template is None
    return plan.depth == 0 or (chain and plan.budget > plan.depth)


class Regression(Fitted):
    """Cost-sensitive classification: predicts the reward of every choice.

    Each choice has its own output, trained on the cycles that took it, so no weights are needed.
    """

    kept = ("memory", "weights", "biases", "due")

    def __init__(
        self, seat: Seat, seed: int = 0, exploring: float = 0.2, hidden: Sequence[int] = (32,),
        refit: int = 512, updates: int = 300,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed, exploring)
        self.hidden, self.refit, self.updates = tuple(hidden), refit, updates
        self.memory = Memory(seat.inputs + 2)  # features, action, reward
        self.weights: list[Array] = []  # of the net in use, which is renewed when it is due
        self.biases: list[Array] = []
        self.due = np.array([refit])

    def act(self, features: Array) -> Choices:
        """The best by the net in use; at random in a share of the cycles, and before it."""
        anything = self.random.integers(self.seat.choices, size=len(features))
        if not self.weights:
            return anything
        best = Network(self.weights, self.biases).choose(features)
        return np.where(self.explores(len(features)), anything, best)

    def explores(self, num_envs: int) -> np.ndarray:
        """[num_envs] who takes any choice now."""
        return self.random.random(num_envs) < self.exploring

    def see(self, step: Step) -> None:
        """Remember, and renew the net in use when it is due."""
        made = np.column_stack((step.features, step.actions, step.rewards))
        self.memory.add(made[step.active])
        self.renew(5 / 4)

    def renew(self, growth: float) -> None:
        """Fit the net in use when it is due; it is due again when the steps have grown so much."""
        if self.steps >= self.due[0]:
            network = self.fit().network()
            self.weights, self.biases = network.weights, network.biases
            self.due = np.array([max(self.steps + self.refit, int(self.steps * growth))])

    def fit(self) -> Net:
        """Squared error at the choices that were taken."""
        rows = self.memory.rows
        targets = torch.from_numpy(scaled(rows[:, -1]))
        actions = torch.from_numpy(rows[:, -2].astype(np.int64))

        def loss(outputs: Tensor, at: Tensor) -> Tensor:
            taken = outputs.gather(1, actions[at][:, None])[:, 0]
            return (taken - targets[at]).square().mean()

        return fit(rows[:, :-2], loss, self.seat.choices, self.hidden, self.seed, self.updates)

    def best(self, features: Array) -> Choices:
        """The largest prediction."""
        return self.net.predict(features).argmax(1)

    def chooser(self) -> Chooser:
        """The net."""
        return self.net.network()


def scaled(values: np.ndarray) -> Array:
    """Standardised, without outliers."""
    wide = values.astype(np.float64)
    return ((wide - wide.mean()) / max(wide.std(), 1e-9)).clip(-4, 4).astype(np.float32)
