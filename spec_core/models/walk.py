"""Noise, and walks along drafted trees by the target's tokens, as machine code; knows no model.

A row has the same bits alone and among others.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from spec_core.models.ranks import largest, peak
from spec_core.models.tiles import LANES, compiled, soften

CHAIN = np.empty((0, 0), np.int64)  # parents that are known without
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
several = partial(compiled, error_model="numpy")  # a division that may raise is done one by one


@several
def _mix(x):  # type: ignore[no-untyped-def]
    """The splitmix64 finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@several
def _log(x):  # type: ignore[no-untyped-def]
    """Of a normal positive number, to a unit in the last place (fdlibm's, without its cases)."""
    bits = np.float64(x).view(np.int64)
    power = (bits - 0x3FE6A09E667F3BCD) >> 52  # of two, so that the rest is near 1
    f = np.int64(bits - (power << 52)).view(np.float64) - 1.0
    s, d, half = f / (2.0 + f), np.float64(power), 0.5 * f * f
    z = s * s
    w = z * z
    even = w * (0.3999999999940942 + w * (0.22222198432149784 + w * 0.15313837699209373))
    odd = w * (0.1818357216161805 + w * 0.14798198605116586)
    odd = z * (0.6666666666666735 + w * (0.2857142874366239 + odd))
    small = s * (half + even + odd) + d * 1.9082149292705877e-10
    return d * 0.6931471803691238 - ((half - small) - f)


@several
def gumbel(seeds, positions, count, stream):  # type: ignore[no-untyped-def]
    """Gumbel noise [N, count] of seeds [N] and positions [N]."""
    made, stream = np.empty((len(seeds), count), np.float32), np.uint64(stream)
    for n in range(len(seeds)):
        place = _mix(np.uint64(positions[n]) * GOLDEN + stream)
        key, row = _mix(np.uint64(seeds[n]) + place), made[n]
        for i in range(count):
            bits = np.int64(_mix(key + np.uint64(i) * GOLDEN) >> np.uint64(11))
            row[i] = -_log(-_log((np.float64(bits) + 0.5) * 2.0**-53))
    return made


@several
def _finite(row):  # type: ignore[no-untyped-def]
    """Whether there is no NaN, and the largest is finite."""
    good, possible = np.int32(0), np.int32(0)  # as wide as what is compared
    for i in range(len(row)):
        good = np.int32(good + np.int32(row[i] < np.float32(np.inf)))
        possible = np.int32(possible + np.int32(row[i] > np.float32(-np.inf)))
    return good == len(row) and possible > 0


@several
def _drawn(logits, noise, shaping, room):  # type: ignore[no-untyped-def]
    """The largest of logits / temperature + noise, of those that top-k and top-p leave.

    room: [3, V and a vector's width].
    """
    temperature, top_k, top_p = shaping
    count, heat, cut = len(logits), np.float32(temperature), np.float32(-np.inf)
    scores, noisy = room[0, :count], room[1, :count]
    for i in range(count):
        scores[i] = logits[i] / heat
    if 0 < top_k < count:
        most = np.empty(top_k, np.float32)
        largest(scores, np.empty(top_k, np.int64), most)
        cut = most[top_k - 1]
    for i in range(count):
        noisy[i] = scores[i] + noise[i] if scores[i] >= cut else np.float32(-np.inf)
    pick = peak(noisy)
    if top_p < 1:
        shares = room[2]
        shares[count:] = -np.inf
        for i in range(count):
            shares[i] = scores[i] if scores[i] >= cut else np.float32(-np.inf)
        limit = top_p * soften(shares.ctypes.data, count, np.float32(1))
        while _ahead(scores, shares, noisy, pick) >= limit:  # it is dropped, and all behind it
            onward = peak(noisy)
            if not noisy[onward] > -np.inf:
                break
            pick = onward
    return pick


@several
def _ahead(scores, shares, noisy, pick):  # type: ignore[no-untyped-def]
    """The shares of those likelier than a token; the others are out of the race."""
    total, mine = 0.0, scores[pick]
    for i in range(len(scores)):
        if scores[i] > mine or (scores[i] == mine and i < pick):
            total += shares[i]
        else:
            noisy[i] = -np.inf
    return total


@compiled
def _child(tokens, parents, node, token):  # type: ignore[no-untyped-def]
    """The node under another that has a token; 0: there is none."""
    for n in range(node + 1, len(tokens) if len(parents) else min(node + 2, len(tokens))):
        if tokens[n] == token and (len(parents) == 0 or parents[0, n] == node):
            return n
    return 0


@compiled
def walk(logits, tokens, parents, slots, noise, shaping):  # type: ignore[no-untyped-def]
    """Follow the target's tokens from the roots, as far as they were drafted; [B, 3 + 3 N].

    Each row: nodes accepted, nodes drafted, whether the logits met are sound; then, N places each,
    the path, its draft slots, and its tokens with the bonus, which there is none of behind logits
    that are not. noise: [B, depths, V], or none if greedy; shaping: temperature, top-k, top-p.
    """
    batch, nodes, vocab = logits.shape
    found = np.zeros((batch, 3 + 3 * nodes), np.int64)
    room = np.empty((3, vocab + LANES), np.float32)
    for b in range(batch):
        path, held, text = found[b, 3:], found[b, 3 + nodes :], found[b, 3 + 2 * nodes :]
        above, node, hits = parents[b if len(parents) else 0 : b + 1], 0, 0
        for n in range(1, nodes):
            found[b, 1] += tokens[b, n] >= 0
        while True:
            row = logits[b, node]
            found[b, 2] = _finite(row)
            if not found[b, 2]:
                break
            text[hits] = _drawn(row, noise[b, hits], shaping, room) if len(noise) else peak(row)
            node = _child(tokens[b], above, node, text[hits])
            if node == 0:
                break
            path[hits], held[hits] = node, slots[b, node]
            hits += 1
        found[b, 0] = hits
    return found
