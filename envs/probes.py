"""Learned policies of the usual size that always decide alike, to measure what deciding costs."""

from __future__ import annotations

import numpy as np

from spec_core.chooser import Network
from spec_core.features import FEATURES, LEVEL_FEATURES
from spec_core.learned import MenuPolicy, StopPolicy
from spec_core.menu import Menu
from spec_core.plan import Plan

QUESTIONS = 6


def network(inputs: int, choice: int) -> Network:
    """A network of the usual size, which takes one of two choices whatever it sees."""
    hidden, outputs = 64, 2
    sizes = [(hidden, inputs), (hidden, hidden), (outputs, hidden)]
    weights = [np.zeros(size, np.float32) for size in sizes]
    weights[0] += 0.01  # what reads nothing would cost nothing
    biases = [np.zeros(rows, np.float32) for rows, _ in sizes]
    biases[-1][choice] = 1
    return Network(weights, biases)


def learned() -> MenuPolicy:
    """A learned policy, which drafts two tokens."""
    return MenuPolicy(Menu.of(["ar", "chain-2"]), network(len(FEATURES), 1))


def questioned() -> StopPolicy:
    """A learned policy that is asked `QUESTIONS` times per cycle and never stops."""
    inputs = len(FEATURES) + len(LEVEL_FEATURES)
    return StopPolicy(Plan(QUESTIONS + 1), network(inputs, 0))
