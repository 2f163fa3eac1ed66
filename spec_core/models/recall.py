"""What followed the last time a text ended as it does now, as machine code; knows no model."""

from __future__ import annotations

import numpy as np

from spec_core.models.ranks import peak
from spec_core.models.tiles import LANES, compiled, lay, soften
from spec_core.rows import EVEN, SURE, TRUST


@compiled
def found(text, noted, count):  # type: ignore[no-untyped-def]
    """The token that once followed the longest end of text[:count], and how long that is; or 0, 0.

    It is looked for among the first `noted`; of equals the latest counts.
    """
    token = most = 0
    for j in range(noted - 1, 0, -1):
        length = 0
        while length < min(j, SURE) and text[j - 1 - length] == text[count - 1 - length]:
            length += 1
        if length > most:
            token, most = text[j], length
            if most == SURE:
                break
    return token, most


@compiled
def insist(row, token):  # type: ignore[no-untyped-def]
    """Logits of a past that is sure."""
    row[:] = np.log((1 - TRUST) / max(len(row) - 1, 1))
    row[token] = np.log(TRUST)


@compiled
def remind(row, token, length):  # type: ignore[no-untyped-def]
    """Mix a token that so many tokens recall into a model's logits, in place."""
    if length == SURE:
        insist(row, token)
    elif length:
        size, top = len(row), row[peak(row)]
        weights = np.empty(size + LANES, np.float32)
        lay(row, weights[:size])
        weights[size:] = -np.inf
        total = soften(weights.ctypes.data, size, np.float32(1))
        row[token] = top + np.log(weights[token] + total * np.float32(length / EVEN))


@compiled
def recalled(logits, past, noted, drafted, seen):  # type: ignore[no-untyped-def]
    """The same for logits [B, W, V], in place, of drafted nodes.

    past: [B, N] texts, with room behind the first noted [B]; drafted: [B, S] tokens by draft slot,
    of which a node has seen [B, W, S] some; slot 0 is the root.
    """
    for b in range(len(logits)):
        for w in range(logits.shape[1]):
            count = noted[b]
            for slot in range(1, drafted.shape[1]):
                if seen[b, w, slot]:
                    past[b, count] = drafted[b, slot]
                    count += 1
            token, length = found(past[b], noted[b], count)
            remind(logits[b, w], token, length)


@compiled
def spared(text, noted, path):  # type: ignore[no-untyped-def]
    """Behind which of a path's tokens, the text's end first, the past is sure: [levels]."""
    made = np.zeros(len(path), np.bool_)
    for level in range(len(path)):
        made[level] = found(text, noted, noted + level)[1] == SURE
        text[noted + level] = path[level]
    return made
