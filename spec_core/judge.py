"""Policies asked without leaving the machine code: networks where their features are made.

A menu's is asked once a cycle; one that stops drafts within them, after a level: it reads what
`StopPolicy.stop` reads, and answers with the same bits. So do rules that are bars.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.doubt import Judge
from spec_core.features import along, entropy, place_level
from spec_core.odds import improbable
from spec_core.packed import largest
from spec_core.quick import compiled

NOBODY: Judge = np.empty((1, 0), np.float32), np.empty(0, np.int64)


@compiled
def picks(net, rows, *seen):  # type: ignore[no-untyped-def]
    """What a network picks from the features that `along` makes."""
    along(rows, *seen)
    return largest(rows, 0, net)


@compiled
def ends(judge, depth, before, path, total, logs):  # type: ignore[no-untyped-def]
    """Whether a chain's level is the last; path, before: its score and that of the level above.

    judge: a policy's row of features with room for a level's, and its network; or what
    `spec_core.doubt` makes of a rule's bars.
    """
    row, net = judge
    if not net[0] and net[1]:
        return improbable(row, net[1], net[2], depth, before, path)
    if not net[0]:
        least, most = row[0, 0], row[0, 1]
        if path - before < least:
            return True
        return most < math.inf and entropy(logs.ctypes.data, len(logs)) > most
    mass = math.exp(path)
    place_level(row, 0, depth, path, before, mass, total + mass, logs.ctypes.data, len(logs))
    return largest(row, 0, net) == 1
