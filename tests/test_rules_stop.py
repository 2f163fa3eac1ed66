"""Stop rules and trims against references written once more, on random pools of scores."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruling import COSTS, drawn, observation, outcome

from policies.rules import make_rule
from policies.rules.marginal import Marginal
from spec_core.drafting import LevelView


def levels(draw, batch: int, depth: int, size: int) -> list[torch.Tensor]:
    """Path log probabilities level by level, the root first; some are nobody's."""
    share = st.floats(0.02, 0.999)
    pool = [torch.zeros(batch, 1)]
    for _ in range(depth):
        best = pool[-1].amax(1, keepdim=True)
        shares = draw(st.lists(share, min_size=batch * size, max_size=batch * size))
        gone = draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, -math.inf]), min_size=batch * size,
                             max_size=batch * size))  # fmt: skip
        news = torch.tensor(shares).log() + torch.tensor(gone)
        pool.append(best + news.view(batch, size))
    return pool


@st.composite
def pools(draw, size: int | None = None):
    """A batch of pools."""
    return levels(draw, draw(st.integers(1, 3)), draw(st.integers(1, 5)),
                  size or draw(st.integers(1, 6)))  # fmt: skip


def asked(rule, pool: list[torch.Tensor], width: int = 1) -> list[list[bool]]:
    """The rule's masks, level by level."""
    batch = len(pool[0])
    rule.plan(observation(batch))
    logs = torch.zeros(batch, width, 3)
    views = [LevelView(d, pool[d], width, pool[: d + 1], logs) for d in range(1, len(pool))]
    return [list(map(bool, rule.stop(view))) for view in views]


def probabilities(pool: list[torch.Tensor], row: int, depth: int) -> list[float]:
    """Path probabilities of a sequence down to a depth, largest first."""
    flat = [math.exp(s) for scores in pool[1 : depth + 1] for s in scores[row].tolist()]
    return sorted(flat, reverse=True)


@given(pools(), st.integers(1, 12), st.sampled_from([0.05, 0.2, 0.5, 0.8]))
def test_opt_tree_stops_where_the_expected_length_no_longer_grows(pool, nodes, delta):
    masks = asked(make_rule("opt_tree", budget=nodes + 1, delta=delta), pool)
    for depth, mask in enumerate(masks, 1):
        for row, stopped in enumerate(mask):
            lengths = [sum(probabilities(pool, row, d)[:nodes]) for d in (depth - 1, depth)]
            gain = lengths[1] - lengths[0]
            if abs(gain - delta) > 1e-5:
                assert stopped == (gain <= delta)


@given(pools(), st.integers(1, 4), st.sampled_from([-2.0, -0.7, -0.3, 0.1]))
def test_ddd_stops_where_the_beam_is_improbable(pool, width, least):
    rule = make_rule("ddd", checks=[1, 3], threshold=least, depth=9, width=width)
    for depth, mask in enumerate(asked(rule, pool, width), 1):
        for row, stopped in enumerate(mask):
            beam = sorted(pool[depth][row].tolist(), reverse=True)[:width]
            total = sum(map(math.exp, beam))
            mass = math.log(total) if total else -math.inf
            if abs(mass - least) > 1e-5:
                assert stopped == (depth in (1, 3) and mass < least)


@given(pools(size=1), st.sampled_from([0.1, 0.4, 0.8]))
def test_confidence_stops_behind_an_improbable_token(pool, least):
    for depth, mask in enumerate(asked(make_rule("confidence", threshold=least), pool), 1):
        for row, stopped in enumerate(mask):
            before, now = float(pool[depth - 1][row, 0]), float(pool[depth][row, 0])
            if math.isinf(now):
                assert stopped
            elif abs(math.exp(now - before) - least) > 1e-5:
                assert stopped == (math.exp(now - before) < least)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=3))
def test_svip_stops_behind_a_doubtful_token(weights):
    q = torch.tensor(weights, dtype=torch.float64)
    q = q / q.sum(1, keepdim=True)
    scores = q.amax(1, keepdim=True).log()
    view = LevelView(1, scores, 1, [torch.zeros(len(q), 1), scores], q.log().float()[:, None])
    rule = make_rule("svip", threshold=1.1)
    for row, stopped in zip(q.tolist(), rule.stop(view), strict=True):
        doubt = math.sqrt(-sum(x * math.log(x) for x in row))
        assert abs(doubt - 1.1) < 1e-6 or stopped == (doubt > 1.1)


@st.composite
def trained(draw):
    """A marginal rule that has learned from random trees."""
    width = draw(st.integers(1, 3))
    budget = draw(st.sampled_from([5, 12, 64]))
    rule = Marginal(depth=6, width=width, budget=budget, costs=COSTS)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(0, 12))):
        rule.drafted = 4
        batch = draw(st.integers(1, 2))
        rows = [drawn(random, lambda q: q * 0.8, 4, 0.2) for _ in range(batch)]
        rule.update(outcome([scores for scores, _ in rows], [path for _, path in rows]))
    return rule


def survival(rule: Marginal, score: float, depth: int) -> float:
    """The calibrated chance of a node, written once more."""
    if math.isinf(score):
        return 0.0
    score = min(max(score, -8.0), -1e-4)
    a, b = rule.survival.lines[min(depth, 6) - 1]
    return 1 / (1 + math.exp(-(a + b * (score - math.log(1 - math.exp(score))))))


def stairs(table, size: int) -> float:
    """A staircase, read by hand."""
    for top, seconds in table:
        if size <= top:
            return seconds
    return table[-1][1] * size / table[-1][0]


@settings(max_examples=60)
@given(trained(), st.data())
def test_the_marginal_rule_verifies_what_brings_most_tokens_per_second(rule, data):
    batch, nodes = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 12))
    rule.drafted = data.draw(st.integers(1, 6))
    parents, scores = [], []
    for _ in range(batch):
        up = [0] + [data.draw(st.integers(0, n - 1)) for n in range(1, nodes)]
        made = sorted((data.draw(st.floats(-5, -0.01)) for _ in up[1:]), reverse=True)
        held = data.draw(st.integers(0, nodes - 1))
        parents.append(up)
        scores.append([0.0, *made[:held], *([-math.inf] * (nodes - 1 - held))])
    tree = outcome(scores, [[]] * batch, parents).tree
    depths = tree.depths.tolist()
    drafting = rule.drafted * stairs(COSTS["draft"], batch * rule.plan_.width)

    def speed(budget: int) -> float:
        gains = [survival(rule, scores[b][n], depths[b][n])
                 for b in range(batch) for n in range(1, budget)]  # fmt: skip
        return (batch + sum(gains)) / (drafting + stairs(COSTS["verify"], batch * budget))

    chosen = rule.trim(tree)
    assert len(set(chosen)) == 1 and len(chosen) == batch
    assert speed(chosen[0]) >= max(speed(k) for k in range(1, nodes + 1)) * (1 - 1e-6)


@settings(max_examples=60)
@given(trained(), pools())
def test_the_marginal_rule_stops_where_a_level_cannot_pay(rule, pool):
    width, budget, batch = rule.plan_.width, rule.plan_.budget, len(pool[0])
    for depth, mask in enumerate(asked(rule, pool, width), 1):
        beams = [sorted(row, reverse=True)[:width] for row in pool[depth].tolist()]
        gain = sum(survival(rule, s, depth) for beam in beams for s in beam)
        gain *= rule.onward[0] / rule.onward[1]
        small = min(1 + depth * width, budget)
        verify = [stairs(COSTS["verify"], batch * n) for n in (small, min(small + width, budget))]
        extra = stairs(COSTS["draft"], batch * width) + verify[1] - verify[0]
        rate = rule.paid[0] / rule.paid[1] if rule.paid[1] else 0.0
        assert len(set(mask)) == 1
        if abs(gain - rate * extra) > 1e-5:
            assert mask[0] == (gain < rate * extra)
