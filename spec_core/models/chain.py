"""Tokens that follow each other in one text: fed at once, or drafted by the model in one call.

Knows no plans: only when to come back. What a general forward is told in tensors is known here.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.judge import ends
from spec_core.models.forward import Keys, Numbers, Sizes, _forward
from spec_core.models.ranks import rank
from spec_core.models.tiles import compiled


@compiled
def _feed(tokens, first, keep, placed, keys, numbers, sizes):  # type: ignore[no-untyped-def]
    """Logits of the last `keep` of tokens [1, Q], which stand in slots from `first` on."""
    queries, last = tokens.shape[1], len(numbers.rotation) - 1
    slots, seen = np.empty((1, queries), np.int64), np.zeros((1, queries, queries), np.bool_)
    for q in range(queries):
        slots[0, q] = first + q
        seen[0, q, : q + 1] = True
    view = slots[0, :1].copy(), seen, first + queries
    return _forward(
        tokens, np.minimum(slots, last), slots, view, placed, keep, keys, numbers, sizes
    )


@compiled
def feed(tokens, first, keep, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """`_feed` on plain tuples: those with names take long to hand over."""
    return _feed(tokens, first, keep, placed, Keys(*place), Numbers(*arrays), Sizes(*widths))


@compiled
def chain(tokens, first, noise, levels, ranking, halt, judge, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """Best tokens behind tokens [1, Q], their path scores, and the last one's logs [1, 1, V].

    It feeds itself what it finds, up to so many levels, or to the first path that is not above the
    bar, unless it is within the judge's bounds and the judge lets it go on. ranking: temperature,
    score and levels so far; halt: bar, low, high, total; noise: a row per level, or none.
    """
    (heat, score, depth), (bar, low, high, total) = ranking, halt
    temperature, path, before = np.float32(heat), np.float32(score), score
    keys, numbers, sizes = Keys(*place), Numbers(*arrays), Sizes(*widths)
    found, scores = np.empty(levels, np.int64), np.empty(levels, np.float32)
    logs = np.empty((1, 1, len(numbers.embedding)), np.float32)
    for level in range(levels):
        logits = _feed(tokens, first, np.int64(1), placed, keys, numbers, sizes)[0]
        first, tokens = first + tokens.shape[1], np.empty((1, 1), np.int64)
        more = noise[0, level] if len(noise) else logs[0, 0, :0]
        rank(logits, temperature, more, logs[0, 0], tokens[0], scores[level : level + 1])
        path += scores[level]
        found[level], scores[level], depth = tokens[0, 0], path, depth + 1
        reach = 1.0 * path
        if not reach > bar:
            if not len(judge[1]) or level + 1 == levels or not low <= reach <= high:
                break
            if ends(judge, depth, before, reach, total, logs[0, 0]):
                break
        total, before = total + math.exp(reach), reach
    return found[: level + 1], scores[: level + 1], logs
