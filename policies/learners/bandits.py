"""Bandits over the choices of a menu or verify head: each counts rewards, none looks ahead.

Rewards are the env's, linear in time. A pause of the machine must not ruin an arm's mean, so
rewards are clipped to a generous fence around the recent ones.
"""

from __future__ import annotations

import numpy as np

from policies.learners.base import Array, Choices, Seat, Wide
from policies.learners.loop import Loop, Step
from spec_core.chooser import Chooser, Network

RECENT = 1024  # rewards that the fence and the span are taken from


class Arms(Loop):
    """Counts, sums and squares of each arm's rewards; the best on average is exported."""

    kept: tuple[str, ...] = ("counts", "sums", "squares", "recent")

    def __init__(self, seat: Seat, seed: int = 0) -> None:
        super().__init__(seat, seed)
        self.counts, self.sums, self.squares = np.zeros((3, seat.choices))
        self.recent = np.zeros(0)

    def see(self, step: Step) -> None:
        """Clip the rewards of those who acted and count them."""
        rows = step.active
        if not rows.any():
            return
        rewards = self._fenced(step.rewards[rows])
        self.count(step.features[rows], step.actions[rows], rewards)

    def count(self, features: Array, actions: Choices, rewards: Wide) -> None:
        """Add pulls up."""
        np.add.at(self.counts, actions, 1)
        np.add.at(self.sums, actions, rewards)
        np.add.at(self.squares, actions, rewards**2)

    def _fenced(self, rewards: Wide) -> Wide:
        seen = np.concatenate((self.recent, rewards))[-RECENT:]
        low, high = np.quantile(seen, (0.01, 0.99))
        fence = low - (high - low), high + (high - low)
        self.recent = seen if len(seen) < 100 else seen.clip(*fence)
        return rewards if len(seen) < 100 else rewards.clip(*fence)

    @property
    def span(self) -> float:
        """Width of the recent rewards' range."""
        return float(np.ptp(self.recent)) if len(self.recent) else 0.0

    @property
    def pooled(self) -> tuple[float, float]:
        """Mean and variance of all rewards."""
        total = max(self.counts.sum(), 1)
        mean = self.sums.sum() / total
        variance = self.squares.sum() / total - mean**2
        return float(mean), max(float(variance), 1e-12)

    @property
    def means(self) -> Wide:
        """Of each arm; the pooled one where nothing was tried."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), self.pooled[0])

    def values(self) -> Wide:
        """What each arm is thought to be worth, [choices]."""
        return self.means

    def best(self, features: Array) -> Choices:
        """The arm worth most, whatever the features."""
        return np.full(len(features), self.values().argmax())

    def chooser(self) -> Chooser:
        """A fixed preference."""
        values = self.values()
        weights = np.zeros((self.seat.choices, self.seat.inputs), np.float32)
        return Network([weights], [(values - values.max()).astype(np.float32)])

    def metrics(self) -> dict[str, float]:
        """The worth of each arm and its share of the pulls."""
        shares = self.counts / max(self.counts.sum(), 1)
        made = {f"value/{i}": float(v) for i, v in enumerate(self.values())}
        return made | {f"share/{i}": float(v) for i, v in enumerate(shares)}


def ucb1_index(means: Wide, counts: Wide, span: float) -> Wide:
    """mean + span * sqrt(2 ln t / n), t the pulls of all arms; infinite for untried arms."""
    tries = np.maximum(counts, 1)
    bonus = span * np.sqrt(2 * np.log(max(counts.sum(), 1)) / tries)
    return np.where(counts > 0, means + bonus, np.inf)


class Ucb1(Arms):
    """UCB1 (Auer et al. 2002), its bonus in units of the rewards' range."""

    def __init__(self, seat: Seat, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__(seat, seed)
        self.scale = scale

    def act(self, features: Array) -> Choices:
        """The largest index, counted as if the envs pulled one after the other."""
        counts, actions = self.counts.copy(), []
        for _ in features:
            actions.append(int(ucb1_index(self.means, counts, self.scale * self.span).argmax()))
            counts[actions[-1]] += 1
        return np.array(actions)


class Exp3(Arms):
    """Exp3 (Auer et al. 2002): exponential weights on importance-weighted rewards."""

    kept = (*Arms.kept, "gains")

    def __init__(self, seat: Seat, seed: int = 0, exploring: float = 0.1) -> None:
        super().__init__(seat, seed)
        if not 0 < exploring <= 1:
            raise ValueError(f"exploring is a share above 0, up to 1, not {exploring}")
        self.exploring, self.gains = exploring, np.zeros(seat.choices)  # log weights

    @property
    def chances(self) -> Wide:
        """Of drawing each arm."""
        weights = np.exp(self.gains - self.gains.max())
        share = self.exploring / self.seat.choices
        return (1 - self.exploring) * weights / weights.sum() + share

    def act(self, features: Array) -> Choices:
        """Draws from the chances."""
        return self.random.choice(self.seat.choices, len(features), p=self.chances)

    def count(self, features: Array, actions: Choices, rewards: Wide) -> None:
        """Move the weights of the pulled arms; rewards scaled to 0..1 of the recent range."""
        super().count(features, actions, rewards)
        scaled = (rewards - self.recent.min()) / max(self.span, 1e-12)
        gains = scaled.clip(0, 1) / self.chances[actions]
        np.add.at(self.gains, actions, gains * self.exploring / self.seat.choices)

    def values(self) -> Wide:
        """Log weights."""
        return self.gains


class GaussianThompson(Arms):
    """Thompson sampling with a normal-inverse-gamma posterior, its prior the pooled rewards."""

    def act(self, features: Array) -> Choices:
        """The best arm of a posterior draw for every env."""
        pooled, variance = self.pooled
        shape, kappa = (len(features), self.seat.choices), 1 + self.counts
        spread = self.squares - self.counts * self.means**2  # around each arm's own mean
        drift = self.counts * (self.means - pooled) ** 2 / kappa
        beta = variance + (np.maximum(spread, 0) + drift) / 2
        noise = beta / self.random.gamma(1 + self.counts / 2, size=shape)
        draws = self.values() + np.sqrt(noise / kappa) * self.random.standard_normal(shape)
        return draws.argmax(1)

    def values(self) -> Wide:
        """Posterior means: one pseudo pull of the pooled mean."""
        return (self.pooled[0] + self.sums) / (1 + self.counts)
