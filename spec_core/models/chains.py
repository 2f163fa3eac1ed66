"""Chains behind several texts, drafted by the model in one call; knows no plans.

A row has the bits that it has alone, and those of drafting level by level.
"""

from __future__ import annotations

import numpy as np

from spec_core.models.chain import read
from spec_core.models.forward import Keys, Numbers, Sizes
from spec_core.models.ranks import rank
from spec_core.models.recall import found as recalled
from spec_core.models.recall import remind
from spec_core.models.tiles import compiled, lay
from spec_core.tree import NOTHING


@compiled
def chains(tokens, lengths, noise, temperature, growth, past, placed, place, arrays, widths):  # type: ignore[no-untyped-def]
    """Best tokens [B, 1 + levels] behind texts that end in tokens [B, Q], and their path scores.

    growth: levels; whether chains end one by one, and then [B] how long each may be and which
    path score it may not fall below; NOTHING, with -inf, stands behind an end, and where all have
    ended there are no more levels. noise: [B, levels, V], or none; past: texts [B, N] with room
    behind the first noted [B], or none.
    """
    (levels, thins, limits, floors), (texts, noted) = growth, past
    keys, numbers, sizes = Keys(*place), Numbers(*arrays), Sizes(*widths)
    batch, size, heat = len(tokens), len(numbers.embedding), np.float32(temperature)
    made = np.full((batch, 1 + levels), NOTHING)
    path = np.full((batch, 1 + levels), np.float32(-np.inf))
    path[:, 0] = 0
    lay(tokens[:, -1], made[:, 0])
    logs, token, score = np.empty(size, np.float32), np.empty(1, np.int64), np.empty(1, np.float32)
    fed, first = tokens, lengths - tokens.shape[1]
    for level in range(levels):
        logits, going = read(fed, first, np.int64(1), placed, keys, numbers, sizes), False
        for b in range(batch):
            if thins and (made[b, level] == NOTHING or limits[b] <= level):
                continue
            row = logits[b, :size]
            if len(noted):
                remind(row, *recalled(texts[b], noted[b], noted[b] + level))
            rank(row, heat, noise[b, level] if len(noise) else logs[:0], logs, token, score)
            reached = path[b, level] + score[0]
            if thins and not (reached >= floors[b] and reached > -np.inf):
                continue
            made[b, level + 1], path[b, level + 1], going = token[0], reached, True
            if len(noted):
                texts[b, noted[b] + level] = token[0]
        if thins and not going:
            return made[:, : level + 1].copy(), path[:, : level + 1].copy()
        fed, first = made[:, level + 1 : level + 2].copy(), lengths + level
    return made, path
