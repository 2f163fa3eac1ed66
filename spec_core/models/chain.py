"""Tokens that follow each other in one text: fed at once, or drafted by the model in one call.

Knows no plans: only when to come back. What a general forward is told in tensors is known here.
"""

from __future__ import annotations

import math

import numpy as np

from spec_core.judge import ends
from spec_core.models.forward import Keys, Numbers, Sizes, logits_of
from spec_core.models.ranks import rank
from spec_core.models.recall import found as recalled
from spec_core.models.recall import remind
from spec_core.models.tiles import compiled, lay
from spec_core.rows import SURE


@compiled
def read(tokens, first, keep, placed, keys, numbers, sizes):  # type: ignore[no-untyped-def]
    """Logits of the last `keep` of tokens [B, Q], which stand in slots from first [B] on."""
    batch, queries = tokens.shape
    slots, seen = np.empty((batch, queries), np.int64), np.zeros((1, queries, queries), np.bool_)
    span = 0
    for b in range(batch):
        span = max(span, first[b] + queries)
        for q in range(queries):
            slots[b, q] = first[b] + q
    for q in range(queries):
        seen[0, q, : q + 1] = True
    positions = np.minimum(slots, len(numbers.rotation) - 1)
    view = first, seen, span
    return logits_of(tokens, positions, slots, view, placed, keep, keys, numbers, sizes)


@compiled
def _alone(number):  # type: ignore[no-untyped-def]
    """An array of one number."""
    made = np.empty(1, np.int64)
    made[0] = number
    return made


@compiled
def feed(tokens, first, keep, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """`read` of one text on plain tuples: those with names take long to hand over."""
    keys, numbers, sizes = Keys(*place), Numbers(*arrays), Sizes(*widths)
    return read(tokens, _alone(first), keep, placed, keys, numbers, sizes)


@compiled
def branch(numbers, seen, first, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """Logits of a tree as `tree.Grown` has it, in slots from `first` on, the root's."""
    keys, model, sizes = Keys(*place), Numbers(*arrays), Sizes(*widths)
    tokens, depths, last = numbers[0], numbers[2], len(model.rotation) - 1
    slots = np.empty_like(tokens)
    for node in range(tokens.shape[1]):
        slots[0, node] = first + node
    view = _alone(first), seen, first + tokens.shape[1]
    positions = np.minimum(first + depths, last)
    return logits_of(tokens, positions, slots, view, placed, tokens.shape[1], keys, model, sizes)


@compiled
def _longer(tokens, token):  # type: ignore[no-untyped-def]
    """Tokens [1, Q] with one more."""
    made = np.empty((1, tokens.shape[1] + 1), np.int64)
    lay(tokens[0], made[0, :-1])
    made[0, -1] = token
    return made


@compiled
def chain(tokens, first, noise, levels, ranking, halt, judge, past, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """Best tokens behind tokens [1, Q], their path scores, the last one's logs [1, 1, V], and how
    many of all the tokens it has fed itself: none that the past alone could follow.

    It feeds itself what it finds, up to so many levels, or to the first path that is not above the
    bar, unless it is within the judge's bounds and the judge lets it go on. ranking: temperature,
    score and levels so far; halt: bar, low, high, total; noise: a row per level, or none; past: the
    text with room behind it, its length, and with what was drafted.
    """
    (heat, score, depth), (bar, low, high, total), (text, noted, count) = ranking, halt, past
    temperature, path, before = np.float32(heat), np.float32(score), score
    keys, numbers, sizes = Keys(*place), Numbers(*arrays), Sizes(*widths)
    found, scores = np.empty(levels, np.int64), np.empty(levels, np.float32)
    size, start = len(numbers.embedding), first
    logs, logits = np.empty((1, 1, size), np.float32), np.empty(size, np.float32)
    for level in range(levels):
        token, length = recalled(text, noted, count)
        if length < SURE:
            where = _alone(first)
            logits = read(tokens, where, np.int64(1), placed, keys, numbers, sizes)[0, :size]
            first, tokens = first + tokens.shape[1], tokens[:, :0]
        remind(logits, token, length)
        more = noise[0, level] if len(noise) else logs[0, 0, :0]
        here = slice(level, level + 1)
        rank(logits, temperature, more, logs[0, 0], found[here], scores[here])
        path += scores[level]
        scores[level], depth, tokens = path, depth + 1, _longer(tokens, found[level])
        reach = 1.0 * path
        if not reach > bar:
            if not len(judge[1]) or level + 1 == levels or not low <= reach <= high:
                break
            if ends(judge, depth, before, reach, total, logs[0, 0]):
                break
        if len(text):
            text[count], count = found[level], count + 1
        total, before = total + math.exp(reach), reach
    return found[: level + 1], scores[: level + 1], logs, first - start
