"""What the cycles of a step come to, as it is paid and told; knows no models and no gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.rewards import Floats, Mask, Rate, Reward

FIGURES = ("tokens", "seconds", "accepted", "drafted", "depth", "cycles", "texts")
NOW = 500.0  # steps that `rate` remembers
TYPES = {"seconds": np.float64, "ended": np.bool_}  # of info columns; the others are whole numbers


def told(figures: NDArray[np.float64], whole: bool = True) -> dict[str, NDArray]:
    """The columns of an info, from [FIGURES, B] sums over the cycles of a step.

    whole: all but the seconds are whole numbers; means over texts are not.
    """
    names = (*FIGURES[:-1], "ended")
    return {
        name: row.astype(TYPES.get(name, np.int64) if whole else np.float64)
        for name, row in zip(names, figures, strict=True)
    }


class Books:
    """What a step of B environments came to, and what of it counts with the next."""

    def __init__(self, reward: Reward, per_cycle: bool) -> None:
        """per_cycle: episodes are single cycles, and paid once they are over."""
        self.reward, self.per_cycle, self.speed = reward, per_cycle, Rate(NOW)
        self.handed = True  # the first observations of all episodes were given out already

    def open(self, num_envs: int, size: int) -> None:
        """All environments begin, with `size` features."""
        self.figures = np.zeros((2, len(FIGURES), num_envs))  # of this step, and of the next
        self.over = np.ones(num_envs, bool)  # episodes that ended in this step
        self.final = np.zeros((num_envs, size), np.float32)  # their last features

    def turn(self) -> None:
        """A step begins."""
        self.figures[0] += self.figures[1]
        self.figures[1] = 0.0
        self.over, self.final = np.zeros_like(self.over), np.zeros_like(self.final)

    def enter(self, rows: NDArray[np.int64], figures: Floats) -> NDArray[np.int64]:
        """Count [FIGURES, rows] of a cycle; returns the rows whose episodes end with it.

        What comes behind an episode's end counts with the next.
        """
        self.figures[self.over[rows].astype(int), :, rows] += figures.T
        over = rows[~self.over[rows] & (self.per_cycle | (figures[-1] > 0))]
        self.over[over] = True
        return over

    def settle(self) -> tuple[Floats, Floats]:
        """Rewards [B] and figures [FIGURES, B] of the step."""
        counted: Mask = self.over if self.per_cycle else np.ones_like(self.over)
        figures = self.figures[0] * counted
        self.figures[0] -= figures
        tokens, seconds = figures[0], figures[1]
        self.speed.add(tokens[counted], seconds[counted])
        self.handed = not self.over.all()
        return self.reward(tokens, seconds, counted, self.over), figures

    def begin(self) -> None:
        """Episodes begin anew; what was learnt of the clock stays."""
        self.handed = True
        self.reward.begin()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON."""
        return {"reward": self.reward.state(), "speed": self.speed.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; the next thing must be a reset."""
        self.reward.restore(state["reward"])
        self.speed.restore(state["speed"])
        self.handed = True
