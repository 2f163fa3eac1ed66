"""Policies asked without leaving the machine code: networks where their features are made.

A menu's is asked once a cycle; one that stops drafts within them, after a level: it reads what
`StopPolicy.stop` reads, and answers with the same bits. So do rules of a few numbers.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.doubt import Judge
from spec_core.features import along, entropy, place_level
from spec_core.odds import gained, improbable
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
    if net[0] < 0:
        return math.exp(path) <= row[0, 0]
    if not net[0] and net[1]:
        return improbable(row, net[1], net[2], depth, before, path)
    if not net[0]:
        least, most = row[0, 0], row[0, 1]
        if path - before < least:
            return True
        return most < math.inf and entropy(logs.ctypes.data, len(logs)) > most
    mass = math.exp(path)
    return enough(judge, depth, path, before, mass, total + mass, logs)


@compiled
def enough(judge, depth, best, before, mass, total, logs):  # type: ignore[no-untyped-def]
    """Whether a network ends a draft after a level; logs: what its best node was drawn from."""
    row, net = judge
    place_level(row, 0, depth, best, before, mass, total, logs.ctypes.data, len(logs))
    return largest(row, 0, net) == 1


@compiled
def grown(judge, depth, levels, children, scores, logs):  # type: ignore[no-untyped-def]
    """Whether a tree ends; its scores begin with the root, the newest two levels at `levels`.

    children: of each node that the newest was taken from; logs [1, W, V]: theirs.
    """
    above, near = levels
    if judge[1][0] < 0:
        return gained(scores, near, -judge[1][0]) <= judge[0][0, 0]
    mass, total, best = 0.0, 0.0, near
    for place in range(1, len(scores)):  # one after the other, as `features.fill_level` adds them
        chance = math.exp(1.0 * scores[place])
        total += chance
        if place >= near:
            mass += chance
            if scores[place] > scores[best]:
                best = place
    before, now = 1.0 * scores[above:near].max(), 1.0 * scores[best]
    return enough(judge, depth, now, before, mass, total, logs[0, (best - near) // children])
