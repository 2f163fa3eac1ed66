"""A stop policy's network within drafting: asked after a level without leaving the machine code.

It reads what `StopPolicy.stop` reads, and answers with the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.features import place_level
from spec_core.packed import largest
from spec_core.quick import compiled

# A policy's row of features with room for a level's, and its network as `packed.largest` wants it.
Judge = tuple[np.ndarray, np.ndarray, np.ndarray, bool, np.ndarray]
NOBODY: Judge = (
    np.empty((1, 0), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), True,
    np.empty(0, np.float32),
)  # fmt: skip


@compiled
def ends(judge, depth, before, path, total, logs):  # type: ignore[no-untyped-def]
    """Whether a chain's level is the last; path, before: its score and that of the level above."""
    row, numbers, sizes, tanh, room = judge
    mass = math.exp(path)
    place_level(row, 0, depth, path, before, mass, total + mass, logs.ctypes.data, len(logs))
    return largest(row, 0, numbers, sizes, tanh, room) == 1
