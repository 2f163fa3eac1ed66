"""A draft's best tokens as machine code: log-softmax and the largest; knows no model and no tree.

A row has the same bits alone, among others and within a chain that drafts on by itself.
"""

from __future__ import annotations

import numpy as np

from spec_core.models.tiles import LANES, compiled, lay, soften

SILENCE = np.empty((0, 1, 1), np.float32)  # no noise
BLOCK = 64  # numbers that are compared side by side, where only some block matters


@compiled
def _above(row, start, stop, bar):  # type: ignore[no-untyped-def]
    """Whether any number of a block is above a bar."""
    found = False
    for i in range(start, stop):
        found |= row[i] > bar
    return found


@compiled
def peak(row):  # type: ignore[no-untyped-def]
    """Where a row's largest is first; NaNs are passed over."""
    place, top = 0, np.float32(-np.inf)
    for start in range(0, len(row), BLOCK):
        stop = min(start + BLOCK, len(row))
        if _above(row, start, stop, top):
            for i in range(start, stop):
                if row[i] > top:
                    place, top = i, row[i]
    return place


@compiled
def log_softmax(row):  # type: ignore[no-untyped-def]
    """In place; a NaN makes the whole row one."""
    count = len(row)
    powers, top = np.empty(count + LANES, np.float32), row[peak(row)]
    lay(row, powers[:count])
    powers[count:] = -np.inf
    total = soften(powers.ctypes.data, count, np.float32(1))
    powers[0] = np.log(total)  # and not before: an array lives as long as its name is used
    for i in range(count):
        row[i] = row[i] - top - powers[0]


@compiled
def largest(row, places, values):  # type: ignore[no-untyped-def]
    """The row's largest and where they are, the first of equals first; NaNs count as equal."""
    held, most = 0, len(places)
    for start in range(0, len(row), BLOCK):
        stop = min(start + BLOCK, len(row))
        if held == most and not _above(row, start, stop, values[most - 1]):
            continue
        for i in range(start, stop):
            if held == most and not row[i] > values[most - 1]:
                continue
            place = held = min(held + 1, most)
            while place > 1 and row[i] > values[place - 2]:
                place -= 1
                values[place], places[place] = values[place - 1], places[place - 1]
            values[place - 1], places[place - 1] = row[i], i


@compiled
def rank(logits, temperature, noise, logs, tokens, scores):  # type: ignore[no-untyped-def]
    """Fill logs [V] of softmax(logits / temperature + noise), and its best; noise: [V] or [0]."""
    for i in range(len(logs)):
        logs[i] = logits[i] / temperature
    for i in range(len(noise)):
        logs[i] += noise[i]
    log_softmax(logs)
    largest(logs, tokens, scores)


@compiled
def ranked(logits, temperature, noise, count):  # type: ignore[no-untyped-def]
    """Every row's tokens and scores [B, W, count], and logs [B, W, V]; noise: the same or [0]s."""
    batch, width = logits.shape[:2]
    logs = np.empty(logits.shape, np.float32)
    tokens = np.empty((batch, width, count), np.int64)
    scores = np.empty((batch, width, count), np.float32)
    for b in range(batch):
        for w in range(width):
            more = noise[b, w] if len(noise) else logs[b, w, :0]
            rank(logits[b, w], np.float32(temperature), more, logs[b, w], tokens[b, w],
                 scores[b, w])  # fmt: skip
    return tokens, scores, logs
