"""Trees of one text, which a model drafts by itself; what `growers` does with tensors, to the bit.

Knows no plans, only rounds, and when to come back. A pool holds all candidates, level by level, the
root first (tokens, scores [P]), and by draft slot what was expanded (its place in the pool or -1,
its depth [E], what it sees [E, E]). Rounds: widths and children by level [L], the slot of each
candidate's parent and whether it may be [P], which of the newest a slot expands (-1: by score) [E].
"""

from __future__ import annotations

import numpy as np

from spec_core.judge import grown
from spec_core.models.forward import Keys, Numbers, Sizes, logits_of
from spec_core.models.ranks import largest, rank
from spec_core.models.recall import found as recalled
from spec_core.models.recall import remind
from spec_core.models.tiles import compiled, lay


@compiled
def _ends(rounds, levels):  # type: ignore[no-untyped-def]
    """After so many levels: draft slots taken, where the newest candidates begin, and all end."""
    slots, near, size = 0, 0, 1
    for level in range(levels):
        width = rounds[0][level]
        slots, near, size = slots + width, size, size + width * rounds[1][level]
    return slots, near, size


@compiled
def _choose(pool, rounds, anywhere, near, size, first, last):  # type: ignore[no-untyped-def]
    """Give the slots from first to last the best of the newest, or of all not yet expanded."""
    _, scores, held, depths, seen = pool
    _, _, parents, _, chosen = rounds
    places, values = np.empty(last - first, np.int64), np.empty(last - first, np.float32)
    start = 0 if anywhere else near
    among = scores[start:size].copy()
    if anywhere:
        for slot in range(first):
            among[max(held[slot], 0)] = -np.inf
    largest(among, places, values)
    for slot in range(first, last):
        place = places[slot - first] if chosen[slot] < 0 else chosen[slot]
        held[slot] = place + start if among[place] > -np.inf else -1
        parent = parents[place + start]
        depths[slot] = depths[parent] + 1
        lay(seen[parent], seen[slot])
        seen[slot, slot] = True


@compiled
def _inputs(text, length, pool, first, last, room):  # type: ignore[no-untyped-def]
    """Tokens, positions, slots [1, Q] and the view: of the text's end, or of what was chosen."""
    tokens, _, held, depths, seen = pool
    queries = len(text)
    if first:
        queries = (held[first:last] >= 0).sum()
    base = length - 1 if first else length - queries  # the first slot that is masked
    inputs, span = np.empty((3, 1, queries), np.int64), last if first else queries
    view = np.zeros((1, queries, span), np.bool_)
    slot = first
    for q in range(queries):
        if first:
            while held[slot] < 0:
                slot += 1
            inputs[0, 0, q], inputs[1, 0, q] = tokens[held[slot]], base + depths[slot]
            lay(seen[slot], view[0, q])
        else:
            inputs[0, 0, q], inputs[1, 0, q], view[0, q, : q + 1] = text[q], base + q, True
        inputs[1, 0, q], inputs[2, 0, q] = min(inputs[1, 0, q], room), base + slot
        slot += 1
    return inputs[0], inputs[1], inputs[2], (np.array([base]), view, base + span)


@compiled
def _offer(logits, pool, size, slots, children, allowed, noise, heat, least, past, logs):  # type: ignore[no-untyped-def]
    """Put what follows the expanded into the pool; the best score. Those that may not be: -inf."""
    tokens, scores, held, depths, seen = pool
    text, noted = past
    row, best, place = 0, np.float32(-np.inf), size
    for slot in range(slots[0], slots[1]):
        behind, found = logs[0, slot - slots[0]], scores[place : place + children]
        if held[slot] < 0:
            behind[:] = -np.inf
            found[:] = -np.inf
        else:
            count = noted
            for above in range(1, slot + 1 if len(text) else 0):
                if seen[slot, above]:
                    text[count], count = tokens[held[above]], count + 1
            token, length = recalled(text, noted, count)
            remind(logits[row, : len(behind)], token, length)
            more = noise[0, depths[slot]] if len(noise) else behind[:0]
            rank(logits[row], heat, more, behind, tokens[place : place + children], found)
            row += 1
            for i in range(children):
                score = found[i] + scores[held[slot]]
                found[i] = score if allowed[place + i] and score >= least else -np.inf
                best = max(best, found[i])
        place += children
    return best


@compiled
def harvest(pool, rounds, levels, nodes):  # type: ignore[no-untyped-def]
    """The best nodes, parents first, in numbers [4, 1, N], scores [1, N] and ancestors [1, N, N].

    The numbers are tokens, parents, depths and draft slots, -1 where a node was not expanded.
    """
    tokens, scores, held, depths, _ = pool
    first, _, size = _ends(rounds, levels)
    order, best = np.empty(min(nodes, size), np.int64), np.empty((1, min(nodes, size)), np.float32)
    largest(scores[:size], order, best[0])
    count = 0
    while count < len(order) and best[0, count] > -np.inf:
        count += 1
    made, seen = np.full((4, 1, count), -1), np.zeros((1, count, count), np.bool_)
    place = np.empty(size, np.int64)
    for node in range(count):
        index = order[node]
        place[index], slot = node, rounds[2][index]
        parent = place[held[slot]]
        made[0, 0, node], made[1, 0, node] = tokens[index], parent
        made[2, 0, node] = depths[slot] + (node > 0)
        lay(seen[0, parent], seen[0, node])
        seen[0, node, node] = True
        for slot in range(first):
            if held[slot] == index:
                made[3, 0, node] = slot
    return made, best[:, :count].copy(), seen


@compiled
def beam(text, pool, rounds, noise, start, limits, judge, past, placed, place, arrays, sizes):  # type: ignore[no-untyped-def]
    """Grow on behind a text's last tokens, until the newest level's best is not above the bar.

    There a judge, if it is one of trees, ends the draft or lets it go on. How many levels there are
    then, the newest's logs [1, W, V], and the harvest: of no nodes before the end, which is also
    where the best is below the floor. start: the text's length, levels so far, whether all are
    chosen from, most nodes; limits: temperature, the least score that may be, floor, bar; noise: a
    row per depth, or none; past: the text with room behind it, and its length.
    """
    (length, level, anywhere, nodes), (heat, least, floor, bar) = start, limits
    keys, numbers, sizes = Keys(*place), Numbers(*arrays), Sizes(*sizes)
    while True:
        first, near, size = _ends(rounds, level)
        last = first + rounds[0][level]
        if level:
            _choose(pool, rounds, anywhere, near, size, first, last)
        known, places, slots, view = _inputs(
            text, length, pool, first, last, len(numbers.rotation) - 1
        )
        logits = np.empty((0, sizes.vocab), np.float32)
        if known.shape[1]:
            keep = known.shape[1] if level else 1
            logits = logits_of(known, places, slots, view, placed, keep, keys, numbers, sizes)
        logs = np.empty((1, last - first, len(numbers.embedding)), np.float32)
        best = _offer(logits, pool, size, (first, last), rounds[1][level], rounds[3], noise,
                      np.float32(heat), np.float32(least), past, logs)  # fmt: skip
        children, level = rounds[1][level], level + 1
        ended = level == len(rounds[0]) or best < floor or not best > -np.inf
        asked = not ended and not best > bar
        if asked and len(judge[1]) and judge[1][0] != 0:
            scores = pool[1][: size + (last - first) * children]
            ended = grown(judge, level, (near, size), children, scores, logs)
            asked = False
        if ended or asked:
            return level, logs, harvest(pool, rounds, level, nodes if ended else 0)
