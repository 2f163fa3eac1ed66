"""Random numbers of one small state, drawn without leaving machine code; knows no rules.

numpy's are better, but in the caches that a forward leaves behind take a hundred microseconds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spec_core.quick import compiled

State = NDArray[np.int64]  # two numbers, which a draw moves on
FIRST, SECOND = 2147483563, 2147483399  # moduli, both prime


def seeded(seed: int) -> State:
    """The state of a seed."""
    first, second = np.random.SeedSequence(seed).generate_state(2).tolist()
    return np.array([first % (FIRST - 1) + 1, second % (SECOND - 1) + 1])


def restored(numbers: Any) -> State:
    """The state that was written; ValueError where it is none."""
    whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not whole or len(numbers) != 2 or not all(0 < number < FIRST for number in numbers):
        raise ValueError(f"the state of its random numbers is two whole ones below {FIRST}")
    return np.array(numbers)


@compiled
def uniform(state):  # type: ignore[no-untyped-def]
    """Within 0 and 1: two multiplicative generators combined (L'Ecuyer 1988)."""
    state[0] = state[0] * 40014 % FIRST
    state[1] = state[1] * 40692 % SECOND
    return ((state[0] - state[1]) % (FIRST - 1) + 1) / FIRST


@compiled
def gamma(state, shape):  # type: ignore[no-untyped-def]
    """Of this shape and scale 1 (Marsaglia and Tsang 2000)."""
    share = 1.0
    if shape < 1:
        share, shape = uniform(state) ** (1 / shape), shape + 1
    d = shape - 1 / 3
    while True:
        normal = math.sqrt(-2 * math.log(uniform(state)))
        normal *= math.cos(2 * math.pi * uniform(state))
        v = (1 + normal / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(uniform(state)) < normal * normal / 2 + d - d * v + d * math.log(v):
            return share * d * v


@compiled
def beta(state, a, b):  # type: ignore[no-untyped-def]
    """Of Beta(a, b)."""
    one, other = gamma(state, a), gamma(state, b)
    if one + other > 0:
        return one / (one + other)
    return 1.0 if uniform(state) * (a + b) < a else 0.0  # both were too small to be told from 0
