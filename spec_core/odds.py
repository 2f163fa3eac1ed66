"""The chance that what was drafted is accepted: as its draft has it, or a line in those log odds.

Machine code where there is numba; knows no policies.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.quick import compiled


@compiled
def log_odds(score):  # type: ignore[no-untyped-def]
    """log(q / (1 - q)) of a log probability, the latter within -8 and almost 0."""
    score = min(max(score, -8.0), -1e-4)
    return score - math.log(-math.expm1(score))


@compiled
def chance(a, b, score):  # type: ignore[no-untyped-def]
    """sigmoid(a + b log_odds(score)); 0 where there is no node."""
    if score == -math.inf:
        return 0.0
    return 1 / (1 + math.exp(-min(max(a + b * log_odds(score), -30.0), 30.0)))


@compiled
def improbable(bars, buckets, of_step, depth, before, path):  # type: ignore[no-untyped-def]
    """Whether a level's chance is below its bar, or, where its step has a bucket, below that one's.

    bars: [levels x buckets, 4] the bucket's lower edge, a and b of its chance, and the least; path,
    before: scores of the level and of that above. of_step: the chance is that of the step.
    """
    step, here = path - before, (depth - 1) * buckets
    for k in range(here + 1, depth * buckets):
        if bars[k, 0] <= step:
            here = k
    return chance(bars[here, 1], bars[here, 2], step if of_step else path) < bars[here, 3]


@compiled
def expected(scores, nodes):  # type: ignore[no-untyped-def]
    """The summed chances of so many best of the scores, of which the first is the root's."""
    best, total = np.full(nodes, -np.inf), 0.0
    for place in range(1, len(scores)):
        score, last = 1.0 * scores[place], nodes - 1
        if score > best[last]:
            while last and score > best[last - 1]:
                best[last], last = best[last - 1], last - 1
            best[last] = score
    for score in best:
        total += math.exp(score)
    return total


@compiled
def gained(scores, near, nodes):  # type: ignore[no-untyped-def]
    """By how much the newest, from `near` on, raise what is expected."""
    return expected(scores, nodes) - expected(scores[:near], nodes)
