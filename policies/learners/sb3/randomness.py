"""The global random generators, lent to one learner at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Randomness:
    """The global generators that SB3 draws from, kept apart from everybody else's."""

    def __init__(self) -> None:
        self.states: tuple[Any, ...] = self._now()

    def _now(self) -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state(), torch.get_rng_state()

    def _use(self, states: tuple[Any, ...]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Draw from our own, then put back the others'."""
        others = self._now()
        self._use(self.states)
        try:
            yield
        finally:
            self.states = self._now()
            self._use(others)

    def numbers(self) -> dict[str, Any]:
        """The states, to be saved; Python's own is never drawn from."""
        kind, keys, *rest = self.states[1]
        return {"keys": torch.from_numpy(keys.astype(np.int64)), "rest": [kind, *rest],
                "torch": self.states[2]}  # fmt: skip

    def take(self, numbers: dict[str, Any]) -> None:
        """The reverse."""
        kind, *rest = numbers["rest"]
        keys = numbers["keys"].numpy().astype(np.uint32)
        self.states = (self.states[0], (kind, keys, *rest), numbers["torch"])
