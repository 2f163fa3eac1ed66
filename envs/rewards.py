"""Tokens and measured seconds to rewards, for every environment of a batch at once.

Live and replayed environments share these objects. Knows no models, plans or clocks.
Which to use, and why the obvious one is a trap: docs/rewards.md.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HORIZON = 20_000.0  # steps that the running rate remembers
PRIOR = 100.0  # steps that a given start rate weighs
PACE = 30.0  # tokens that the common rate weighs in a text's own


class Reward(Protocol):
    """Called once per step of B environments; keeps what it needs between steps."""

    def __call__(self, tokens: Floats, seconds: Floats, counted: Mask, over: Mask) -> Floats:
        """Rewards [B].

        counted: a cycle was paid in this step (otherwise tokens and seconds are 0, and so is the
        reward); over: the episode ends with it.
        """

    def begin(self) -> None:
        """All environments were reset: episodes begin anew, what was learnt of the clock stays."""

    def regroup(self, loads: NDArray[np.int64]) -> None:
        """Texts go on under other loads, [num_envs] places; for environments with several."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""


class Rate:
    """Running sums of tokens, seconds and steps, which forget what is over a horizon ago."""

    def __init__(self, horizon: float = HORIZON, start_rate: float | None = None) -> None:
        assert horizon >= 1, f"a horizon is at least one step, not {horizon}"
        assert start_rate is None or start_rate > 0, f"a rate is positive, not {start_rate}"
        self.horizon, self.start_rate = horizon, start_rate
        self.tokens = self.seconds = self.steps = 0.0

    def add(self, tokens: Floats, seconds: Floats) -> None:
        """Count these steps."""
        if not len(tokens):
            return
        if self.start_rate is not None and not self.steps:
            self.steps, self.seconds = PRIOR, PRIOR * float(seconds.mean())
            self.tokens = self.start_rate * self.seconds
        kept = max(0.0, 1 - len(tokens) / self.horizon) if self.steps > self.horizon else 1.0
        self.tokens = kept * self.tokens + float(tokens.sum())
        self.seconds = kept * self.seconds + float(seconds.sum())
        self.steps = kept * self.steps + len(tokens)

    @property
    def value(self) -> float:
        """Tokens per second; 0 before anything was counted."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def mean_seconds(self) -> float:
        """Seconds per step."""
        return self.seconds / self.steps if self.steps else 0.0

    def state(self) -> dict[str, float]:
        """The sums."""
        return {"tokens": self.tokens, "seconds": self.seconds, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the sums from `state`."""
        self.tokens, self.seconds = float(state["tokens"]), float(state["seconds"])
        self.steps = float(state["steps"])


class TokensPerSecond:
    """lambda * (1 + (tokens / pace - seconds) / mean seconds), with lambda the running rate.

    pace: the text's own tokens per second up to here, which begins at lambda; `prior` tokens long
    that is most of it, and for good if `prior` is infinite. The mean is the tokens per second.
    constant=False drops the 1, for episodes that are one cycle: there it would only pay for more
    steps. Those say nothing of texts, and the pace is lambda.
    loads: [num_envs] which load each text is decoded under. Each load has its own rate: one for all
    would call every cycle at a low load slow. The factor is their mean, so that all count alike.
    """

    def __init__(
        self, num_envs: int, constant: bool = True, start_rate: float | None = None,
        horizon: float = HORIZON, prior: float = PACE, loads: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        assert prior > 0, f"a text's pace begins with some tokens at the common rate, not {prior}"
        self.loads = np.zeros(num_envs, np.int64) if loads is None else loads
        self.rates = [Rate(horizon, start_rate) for _ in range(self.loads.max() + 1)]
        self.constant, self.prior = constant, prior
        self.tokens, self.seconds = np.zeros(num_envs), np.zeros(num_envs)

    def __call__(self, tokens: Floats, seconds: Floats, counted: Mask, over: Mask) -> Floats:
        """Rewards [B]; this step is in lambda already, but not in the paces."""
        for load, rate in enumerate(self.rates):
            mine = counted & (self.loads == load)
            rate.add(tokens[mine], seconds[mine])
        counted = counted & (self.mean_seconds > 0)[self.loads]
        mean = np.where(counted, self.mean_seconds[self.loads], 1.0)
        made = (tokens * self._worth() - seconds) / mean + self.constant
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds
        self.tokens[over] = self.seconds[over] = 0.0
        return np.where(counted, self.values.mean() * made, 0.0)

    @property
    def values(self) -> Floats:
        """lambda of each load."""
        return np.array([rate.value for rate in self.rates])

    @property
    def mean_seconds(self) -> Floats:
        """Seconds per step of each load."""
        return np.array([rate.mean_seconds for rate in self.rates])

    def _worth(self) -> Floats:
        """Seconds per token of every text, [B]; nothing where nothing is known."""
        common = ratio(np.ones(len(self.rates)), self.values)[self.loads]
        if not self.constant or np.isinf(self.prior):
            return common
        return (self.seconds + self.prior * common) / (self.tokens + self.prior)

    def regroup(self, loads: NDArray[np.int64]) -> None:
        """Texts keep their paces relative to those of their loads."""
        if len(self.rates) == 1:  # one for all, as an object that was handed in may have
            return
        common = ratio(np.ones(len(self.rates)), self.values)
        moved = ratio(common[loads], common[self.loads])
        self.seconds, self.loads = self.seconds * moved, loads

    def begin(self) -> None:
        """Forget the paces of the texts that were not finished."""
        self.tokens[:] = self.seconds[:] = 0.0

    def state(self) -> dict[str, Any]:
        """The running sums, and those of the texts under way."""
        paces = {"text_tokens": self.tokens.tolist(), "text_seconds": self.seconds.tolist()}
        return {"rates": [rate.state() for rate in self.rates], **paces}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the sums from `state`."""
        for rate, kept in zip(self.rates, state["rates"], strict=True):
            rate.restore(kept)
        self.tokens, self.seconds = np.array(state["text_tokens"]), np.array(state["text_seconds"])


class Telescoped:
    """The change of the episode's tokens per second: an episode's rewards sum to exactly that."""

    def __init__(self, num_envs: int) -> None:
        self.tokens, self.seconds = np.zeros(num_envs), np.zeros(num_envs)

    def __call__(self, tokens: Floats, seconds: Floats, counted: Mask, over: Mask) -> Floats:
        """Rewards [B]."""
        before = ratio(self.tokens, self.seconds)
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds
        made = ratio(self.tokens, self.seconds) - before
        self.tokens[over] = self.seconds[over] = 0.0
        return made

    def regroup(self, loads: NDArray[np.int64]) -> None:
        """An episode's tokens per second are those of whatever loads it had."""

    def begin(self) -> None:
        """Forget the episodes that were not finished."""
        self.tokens[:] = self.seconds[:] = 0.0

    def state(self) -> dict[str, Any]:
        """The sums of the episodes under way."""
        return {"tokens": self.tokens.tolist(), "seconds": self.seconds.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the sums from `state`."""
        self.tokens, self.seconds = np.array(state["tokens"]), np.array(state["seconds"])


class CycleRate:
    """tokens / seconds of each cycle, as in earlier work: it ranks policies wrongly."""

    def __init__(self, num_envs: int) -> None:
        pass

    def __call__(self, tokens: Floats, seconds: Floats, counted: Mask, over: Mask) -> Floats:
        """Rewards [B]."""
        return ratio(tokens, seconds)

    def regroup(self, loads: NDArray[np.int64]) -> None:
        """Nothing belongs to a load."""

    def begin(self) -> None:
        """Nothing belongs to an episode."""

    def state(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


def ratio(tokens: Floats, seconds: Floats) -> Floats:
    """tokens / seconds, 0 where no time has passed."""
    return np.divide(tokens, seconds, out=np.zeros(len(tokens)), where=seconds > 0)


REWARDS = ("tokens_per_second", "telescoped", "cycle_rate")


def make_reward(
    name: str | Reward, num_envs: int, per_cycle: bool = False, start_rate: float | None = None,
    loads: NDArray[np.int64] | None = None,
) -> Reward:  # fmt: skip
    """A reward by its name; an object is handed through.

    per_cycle: an episode is one cycle; loads: which load each environment is under.
    """
    if not isinstance(name, str):
        return name
    if name == "tokens_per_second":
        return TokensPerSecond(num_envs, not per_cycle, start_rate, loads=loads)
    if name == "telescoped":
        return Telescoped(num_envs)
    if name == "cycle_rate":
        return CycleRate(num_envs)
    raise ValueError(f"no reward {name!r}; known: {', '.join(REWARDS)}")
