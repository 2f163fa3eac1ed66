"""What tests of replay share: the live environment beside it, a drafter that counts its rounds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from traces import costs_of, lettered, prompts, recorded

from envs.live import SpecDecodeVectorEnv
from envs.replay import ReplayVectorEnv
from envs.trace import Trace
from spec_core import Menu, Pair
from spec_core.drafters.base import DraftState
from spec_core.features import LEVEL_FEATURES, TREE_FEATURES

MENU = Menu.of(["ar", "chain-6@0.2", "beam-4x2n8"])
BUDGETS, COUNT = [1, 2, 3, 5], 6
EXTRA = {"stop": len(LEVEL_FEATURES), "verify": len(TREE_FEATURES)}
BANDS = [(0.0, 1.0), (0.05, 0.4), (0.0, 0.3), (0.15, 1.0)]
heads = pytest.mark.parametrize(("head", "plan"), [("stop", "chain-6"), ("verify", "beam-4x2n8")])


@cache
def on(kind: str, temperature: float = 0.0, eos: tuple[int, ...] = (), new: int = 12):
    """A pair and a recording of six texts."""
    pair = lettered(kind, eos)
    return pair, recorded(pair, MENU, COUNT, temperature=temperature, max_new_tokens=new)


def both(pair: Pair, trace: Trace, head: str, plan: str, size: int, doubt=(0, 1)):
    """The live environment and the replayed one on the same texts in the same order."""
    order = np.random.default_rng((5, 0)).permutation(COUNT)
    texts = [prompts(COUNT)[i] for i in order]
    options = {"head": head, "plan": plan, "budgets": BUDGETS, "seed": 5, "doubt": doubt}
    how = {"temperature": trace.meta.temperature, "max_new_tokens": trace.meta.max_new_tokens}
    live = SpecDecodeVectorEnv(pair, texts, size, shuffle=False, **options, **how)
    costs = costs_of((size,), contexts=[100, 999])
    return live, ReplayVectorEnv(trace, costs, size, loads=(size,), **options)


def draw(masks: np.ndarray, chance: np.random.Generator, going: float) -> np.ndarray:
    """Actions that are allowed; the first one more often than not."""
    anything = np.array([chance.choice(row.nonzero()[0]) for row in masks])
    return np.where(chance.random(len(masks)) < going, 0, anything)


class Rounds(DraftState):
    """A drafter that counts the rounds it is asked for."""

    def __init__(self, drafter) -> None:
        self.drafter, self.rounds = drafter, 0

    def __getattr__(self, name: str):
        return getattr(self.drafter, name)

    def open(self, batch: int, slots: int, greedy: bool = True) -> Rounds:
        self.state = self.drafter.open(batch, slots, greedy)
        return self

    def start(self, *arguments):
        self.rounds += 1
        return self.state.start(*arguments)

    def expand(self, *arguments):
        self.rounds += 1
        return self.state.expand(*arguments)

    def commit(self, *arguments):
        return self.state.commit(*arguments)

    def replace(self, *arguments):
        return self.state.replace(*arguments)
