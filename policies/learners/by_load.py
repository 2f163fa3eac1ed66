"""The fastest static plan of each load, found by trying; exported as a table of the load alone."""

from __future__ import annotations

import numpy as np

from policies.learners.base import Array, Choices, Seat, Wide
from policies.learners.loop import Loop, Step
from spec_core.chooser import Table
from spec_core.features import NAMES

LOAD = NAMES.index("batch")
TRIES = 8  # cycles before a plan's seconds are believed
PAUSE = 5.0  # times a plan's usual seconds: what took longer was the machine's pause


class ByLoad(Loop):
    """Thompson sampling of the plans' tokens per second, at each load that is met.

    A plan is kept for some cycles of a load, `holding` on average: where its cycles begin in a
    text, and with that what they are worth, depends on the plans of the cycles before.
    """

    heads, kept = ("menu",), ("loads", "sums")

    def __init__(self, seat: Seat, seed: int = 0, holding: float = 16.0) -> None:
        super().__init__(seat, seed)
        if holding < 1:
            raise ValueError(f"holding is a number of cycles, at least 1, not {holding}")
        self.holding, self.held = holding, np.zeros(0, np.int64)
        self.under = np.zeros(0)  # the load that each environment's plan is held at
        self.loads = np.zeros(0)  # texts decoded together that were met
        self.sums = np.zeros((0, seat.choices, 6))  # of 1, tokens t, seconds s, t t, t s, s s

    def begin(self, num_envs: int) -> None:
        """Everybody takes a new plan."""
        self.held, self.under = np.full(num_envs, -1), np.zeros(num_envs)

    def act(self, features: Array) -> Choices:
        """The plan of before; now and then the fastest of a draw."""
        loads = np.maximum(np.rint(2.0 ** (6 * features[:, LOAD])), 1)
        self._meet(loads)
        renewed = (self.random.random(len(features)) < 1 / self.holding) | (loads != self.under)
        places = _edges(self.loads).searchsorted(features[:, LOAD], "right")
        speeds, doubts = (part[places] for part in self.speeds())
        draws = speeds + doubts * self.random.standard_normal(speeds.shape)
        draws[np.isinf(doubts)] = self.random.uniform(1e9, 2e9, int(np.isinf(doubts).sum()))
        self.held, self.under = np.where(renewed, draws.argmax(1), self.held), loads
        return self.held

    def _meet(self, loads: Wide) -> None:
        """Make room for loads that are new."""
        known = np.union1d(self.loads, loads)
        sums = np.zeros((len(known), *self.sums.shape[1:]))
        sums[np.isin(known, self.loads)] = self.sums
        self.loads, self.sums = known, sums

    def see(self, step: Step) -> None:
        """Count the cycles of all plans that had room."""
        rows = step.active
        places = _edges(self.loads).searchsorted(step.features[rows, LOAD], "right")
        plans = step.actions[rows]
        tokens, seconds = step.told("tokens")[rows], step.told("seconds")[rows]
        count, _, usual, *_ = self.sums[places, plans].T
        most = np.where(count < TRIES, np.inf, PAUSE * usual / np.maximum(count, 1))
        seconds = np.minimum(seconds, most)
        squares = tokens * tokens, tokens * seconds, seconds * seconds
        made = np.stack((np.ones(len(tokens)), tokens, seconds, *squares), 1)
        np.add.at(self.sums, (places, plans), made)

    def speeds(self) -> tuple[Wide, Wide]:
        """[loads, choices] tokens per second, and their standard errors; infinite where untried.

        The cycles of a stretch are in the same text, so they may count for no more than one.
        """
        count, t, s, tt, ts, ss = np.moveaxis(self.sums, 2, 0)
        tried, s = count >= TRIES, np.maximum(s, 1e-12)
        rate = np.where(tried, t / s, 0.0)
        error = np.sqrt(self.holding * np.maximum(tt - 2 * rate * ts + rate**2 * ss, 0)) / s
        return rate, np.where(tried, error, np.inf)

    def best(self, features: Array) -> Choices:
        """The fastest plan of the load."""
        return self.chooser().choose(features)

    def chooser(self) -> Table:
        """The fastest plans of the loads at which all plans were tried, if there are any."""
        if not self.steps:
            raise ValueError("nothing was seen yet; learn first, then ask for the policy")
        speeds, doubts = self.speeds()
        known = np.isfinite(doubts).all(1)
        known |= not known.any()
        return Table([LOAD], [_edges(self.loads[known]).tolist()], speeds[known].argmax(1))

    def metrics(self) -> dict[str, float]:
        """The best speed of every load."""
        best = self.speeds()[0].max(1)
        return {f"speed/{n:.0f}": float(v) for n, v in zip(self.loads, best, strict=True)}


def _edges(loads: Wide) -> Array:
    """Half-way between the loads, as the feature says them."""
    said = np.log2(loads) / 6
    return ((said[1:] + said[:-1]) / 2).astype(np.float32)
