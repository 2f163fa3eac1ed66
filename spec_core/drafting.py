"""Drafting: a token source and a growth become trees. One loop for every plan; chains are simpler.

No host reads on a GPU, unless levels are asked about; on the CPU, where they are free, a draft
that nobody needs ends early.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spec_core.doubt import ALWAYS, Doubt, Halt
from spec_core.drafters.base import DraftState, Frontier
from spec_core.growers import BestFirst, Grower, distributions
from spec_core.growth import Growth
from spec_core.level import Drafting, LevelView, LineView, Stops
from spec_core.ranking import Drawer, Ranker
from spec_core.tensors import tensor
from spec_core.tree import NOTHING, Line, Tree

__all__ = ["Drafting", "LevelView", "Stops", "draft"]
CPU = torch.device("cpu")


def draft(
    state: DraftState, texts: list[list[int]], growth: Growth, rank: Ranker | Drawer,
    roots: Tensor | None, ask: bool | Doubt = False,
) -> Drafting:  # fmt: skip
    """Grow one tree per text; roots: [B, 1], the last token of each, unless it
    is one text in the host's memory. ask: after which levels.
    """
    doubt = ALWAYS if ask is True else ask or None
    rank.ask(growth.levels[0].children)
    host = len(texts) == 1 and (roots is None or roots.device.type == "cpu")
    if growth.chain and host and isinstance(rank, Ranker):
        return (yield from _follow(state, texts[0], growth, rank, doubt))
    if host and isinstance(rank, Ranker):
        alone = state.branch(texts[0], growth, rank, doubt)
        if alone is not None:
            return (yield from alone)
    roots = tensor([text[-1:] for text in texts], CPU) if roots is None else roots
    if growth.single and doubt is None:
        thins = state.misses or growth.thresholds is not None or not growth.chain
        if not thins or isinstance(rank, Ranker):
            return _chains(state, texts, growth, rank, roots, thins)
    candidates = state.start(texts, rank)
    grower = Grower if growth.best is None else BestFirst
    return (yield from grower(state, growth, rank, roots).grow(candidates, doubt))


def _follow(
    state: DraftState, text: list[int], growth: Growth, rank: Ranker, doubt: Doubt | None
) -> Drafting:
    """The general case where one text has one candidate per level, in the host's memory."""
    levels, least = len(growth.levels), growth.least
    low, high = (least, least) if doubt is None else doubt.logs  # above them all goes on
    judge = doubt.judge if doubt is not None and state.judges else None
    tokens, path, depth, held = [text[-1]], [0.0], 0, 0
    while depth < levels:
        total = sum(map(math.exp, path[1:]))
        halt = Halt(max(least, high), max(least, low), high, total, judge)
        found = state.follow(text, tokens[1:], path[-1], rank, levels - depth, halt)
        tokens += found[0]
        path += found[1]
        depth, held = len(tokens) - 1, found[2]
        if path[-1] < least or path[-1] == -math.inf:
            tokens.pop()
            path.pop()
            break
        if doubt is not None and depth < levels:
            stop = doubt.stops(path[-1])
            if doubt.asks(path[-1]):
                stop = judge is not None or (yield LineView(path, rank.found))[0]
            if stop:
                break
    return Line(tokens, path, held)


def _chains(
    state: DraftState, texts: list[list[int]], growth: Growth, rank: Ranker | Drawer,
    roots: Tensor, thins: bool,
) -> Tree:  # fmt: skip
    """The general case where no level has two candidates: no selection.

    thins: chains may end one by one.
    """
    made = state.chains(texts, growth, rank, thins) if isinstance(rank, Ranker) else None
    tokens, path = made or _level_by_level(state, texts, growth, rank, roots, thins)
    held = min(tokens.shape[1], len(growth.levels))
    if thins:
        return Tree.thinned(tokens, path, held)
    return Tree.line(tokens, path, held, distributions(rank))


def _level_by_level(
    state: DraftState, texts: list[list[int]], growth: Growth, rank: Ranker | Drawer,
    roots: Tensor, thins: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Tokens and path scores [B, 1 + levels]."""
    found = state.start(texts, rank)
    tokens, path = [roots], [torch.zeros_like(roots, dtype=torch.float)]
    for depth in range(1, len(growth.levels) + 1):
        rank.logs(found)  # refused where there are none to draw from
        token, reached = found.tokens[:, 0], path[-1] + found.scores[:, 0]
        if thins:
            reached = _above(reached, growth, depth)
            if reached.is_cpu and not bool(reached.isfinite().any()):
                break
            token = token.masked_fill(reached == -torch.inf, NOTHING)
        tokens.append(token)
        path.append(reached)
        if depth < len(growth.levels):
            rank.ask(1)
            found = state.expand(Frontier(token, depth, None, slot=depth, chain=True), rank)
    return torch.cat(tokens, 1), torch.cat(path, 1)


def _above(reached: Tensor, growth: Growth, depth: int) -> Tensor:
    """Path scores [B, 1] of a level; -inf for those that fell below a threshold or a limit."""
    over = growth.limits < depth
    if growth.thresholds is not None:
        over = over | (reached < growth.thresholds)
    return reached.nan_to_num(-torch.inf, torch.inf, -torch.inf).masked_fill(over, -torch.inf)
