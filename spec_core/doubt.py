"""At which draft levels a policy is worth a question; the rest of a draft goes on or ends without.

Used as it is in drafting (a number at a time), and over recordings (arrays). Knows no policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

# Numbers to judge by, [N, M], and what they are: a network for a row of features, which begins with
# its layers (`spec_core.packed`), or a 0, then the buckets of a table of `chances`, or a second 0
# where they are `bars`; or, less than 0, the nodes of a `gain`. Trees have no bars and no chances.
Judge = tuple[np.ndarray, np.ndarray]
LEAST = 1e-8  # smaller path probabilities are taken for 0: level features end there


@dataclass(frozen=True)
class Doubt:
    """A band of path probabilities: of a level's best path, in which the level is asked about.

    Above `high` drafting goes on, below `low` it ends. The default asks always. A judge, where
    there is one, says what the policy would: a source that can run it need not ask.
    """

    low: float = 0.0
    high: float = 1.0
    judge: Callable[[], Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"doubt is a band of probabilities, 0 <= low <= high <= 1, such as [0.1, 0.6]; "
                f"not [{self.low}, {self.high}]"
            )

    @classmethod
    def of(cls, band: Any) -> Doubt:
        """From two numbers, or from what is one already."""
        if isinstance(band, cls):
            return band
        try:
            low, high = map(float, band)
        except (TypeError, ValueError):
            raise ValueError(f"doubt is two probabilities, low and high, not {band!r}") from None
        return cls(low, high)

    def asks(self, best: Any) -> Any:
        """Whether a best path of this log probability is in doubt."""
        low, high = self.logs
        return (best >= low) & (best <= high)

    def stops(self, best: Any) -> Any:
        """Whether drafting ends there, unasked."""
        return best < self.logs[0]

    @cached_property
    def logs(self) -> tuple[float, float]:
        """The bounds as a draft's scores are, in single precision: the same bits on every side."""
        return _log(self.low), _log(self.high)

    @property
    def pair(self) -> list[float]:
        """As it is written."""
        return [self.low, self.high]


class Halt(NamedTuple):
    """When a chain comes back: its score is not above the bar, and nobody lets it go on."""

    bar: float
    low: float = 0.0  # the judge decides from here
    high: float = 0.0  # to here
    total: float = 0.0  # chances of the levels so far, summed
    judge: Callable[[], Any] | None = None


def bars(least: float, most: float) -> Judge:
    """A judge that ends a chain behind a token of a log below `least` or of more entropy."""
    return np.array([[least, most]], np.float32), np.zeros(2, np.int64)


@lru_cache
def _kind(buckets: int, of_step: bool) -> np.ndarray:
    return np.array([0, buckets, of_step])


def gain(nodes: int, least: float) -> Judge:
    """A judge that ends a draft where a level adds no more than `least` to its expected tokens."""
    return np.array([[least]], np.float32), np.array([-nodes])


def chances(table: np.ndarray, buckets: int, of_step: bool) -> Judge:
    """A judge that ends a chain where `spec_core.odds.improbable` says so, by a table for it."""
    return table, _kind(buckets, of_step)


def _log(probability: float) -> float:
    return float(np.float32(math.log(probability))) if probability > LEAST else -math.inf


ALWAYS = Doubt()
