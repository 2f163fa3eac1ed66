"""A policy's network where its features are made, without leaving the machine code between.

A menu's is asked once a cycle; one that stops drafts within them, after a level: it reads what
`StopPolicy.stop` reads, and answers with the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.features import along, place_level
from spec_core.packed import largest
from spec_core.quick import compiled

# A policy's row of features with room for a level's, and its network as `packed` has it.
Judge = tuple[np.ndarray, np.ndarray]
NOBODY: Judge = np.empty((1, 0), np.float32), np.empty(0, np.int64)


@compiled
def picks(net, rows, *seen):  # type: ignore[no-untyped-def]
    """What a network picks from the features that `along` makes."""
    along(rows, *seen)
    return largest(rows, 0, net)


@compiled
def ends(judge, depth, before, path, total, logs):  # type: ignore[no-untyped-def]
    """Whether a chain's level is the last; path, before: its score and that of the level above."""
    row, net = judge
    mass = math.exp(path)
    place_level(row, 0, depth, path, before, mass, total + mass, logs.ctypes.data, len(logs))
    return largest(row, 0, net) == 1
