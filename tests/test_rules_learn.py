"""What rules learn: posteriors, survival, costs, acceptance by rank; and Sequoia's trees."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruling import COSTS, PROMPTS, chained, drawn, observation, outcome
from small import pair_of

from policies.rules import make_rule
from policies.rules.calibration import Calibration
from policies.rules.costs import Averages, Costs, Staircase
from policies.rules.draws import beta, seeded, uniform
from policies.rules.marginal import Marginal
from policies.rules.sequoia import RankCounter, best_shape
from policies.rules.thompson import Thompson
from spec_core import AUTOREGRESSIVE, SpeculativeDecoder
from spec_core.drafting import LevelView
from spec_core.odds import chance


def test_thompson_counts_what_was_accepted_and_the_first_refusal():
    rule = Thompson(edges=(0.5,), memory=0.5)
    rule.update(outcome([chained(0.9, 0.4, 0.8), chained(0.3, 0.6, 0.7)], [[1, 2], []]))
    #        low: 0.4 accepted, 0.3 refused; high: 0.9 accepted, 0.8 refused; 0.6, 0.7 not tried
    assert rule.counts.tolist() == [[1, 1], [1, 1]]
    rule.update(outcome([chained(0.9, 0.9)], [[1, 2]]))
    assert rule.counts.tolist() == [[0.5, 0.5], [2.5, 0.5]]
    rule.update(outcome([chained()], [[]]))
    assert rule.counts.tolist() == [[0.25, 0.25], [1.25, 0.25]]


def test_thompson_without_edges_is_one_beta():
    rule = Thompson(edges=())
    rule.update(outcome([chained(0.9, 0.2, 0.8, 0.5)], [[1, 2]]))
    assert rule.counts.tolist() == [[2, 1]]


@pytest.mark.parametrize("calibrated", [False, True])
def test_thompson_goes_on_as_often_as_its_posterior_says(calibrated):
    rule = Thompson(edges=(0.5,), calibrated=calibrated, strength=10.0)
    rule.counts[:] = [[2, 8], [29, 1]]
    batch = 4000
    rule.plan(observation(batch))
    for probability, mean in ((0.2, 3 / 12), (0.8, 30 / 32)):
        scores = torch.full((batch, 1), math.log(probability))
        view = LevelView(1, scores, 1, [torch.zeros(batch, 1), scores], torch.zeros(batch, 1, 2))
        weight = 10 / (10 + {0.2: 10, 0.8: 30}[probability]) if calibrated else 0.0
        right = (1 - weight) * mean + weight * probability  # untrained calibration: the draft's own
        assert np.mean(rule.stop(view)) == pytest.approx(1 - right, abs=0.03)


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.7), (1.0, 1.0), (3.0, 12.0), (40.0, 2.5)])
def test_draws_are_those_of_beta_distributions(a, b):
    state = seeded(7)
    drawn = np.array([beta(state, a, b) for _ in range(20000)])
    mean, spread = a / (a + b), math.sqrt(a * b / (a + b + 1)) / (a + b)
    assert drawn.mean() == pytest.approx(mean, abs=4 * spread / math.sqrt(len(drawn)))
    assert drawn.std() == pytest.approx(spread, rel=0.03)
    assert drawn.min() >= 0 and drawn.max() <= 1
    least = np.mean(drawn < mean)
    reference = np.random.default_rng(0).beta(a, b, 200000)
    assert least == pytest.approx(np.mean(reference < mean), abs=0.02)


def test_a_tiny_prior_draws_all_or_nothing():
    state = seeded(1)
    drawn = np.array([beta(state, 0.001, 0.003) for _ in range(4000)])
    assert drawn.mean() == pytest.approx(0.25, abs=0.03) and np.isfinite(drawn).all()


def test_seeds_draw_apart():
    first = np.array([[uniform(state) for _ in range(500)] for state in map(seeded, range(4))])
    assert np.abs(np.corrcoef(first) - np.eye(4)).max() < 0.2
    assert first.mean() == pytest.approx(0.5, abs=0.03)


def test_calibration_finds_the_chance_behind_the_draft():
    random, calibration = np.random.default_rng(0), Calibration(1, memory=0.999)

    def true(q: float) -> float:
        return 1 / (1 + math.exp(-(0.5 * math.log(q / (1 - q)) - 1)))

    for _ in range(3000):
        shares = random.uniform(0.05, 0.95, 4).tolist()
        hits = np.array([[bool(random.random() < true(q)) for q in shares]])
        calibration.learn(np.log([shares]), np.ones(hits.shape, np.int64), hits)
    for q in np.linspace(0.1, 0.9, 9):
        assert chance(*calibration.lines[0], math.log(q)) == pytest.approx(true(q), abs=0.06)
    assert chance(*calibration.lines[0], -math.inf) == 0


def test_the_marginal_rule_learns_survival_and_not_the_chance_of_a_step():
    random, rule = np.random.default_rng(0), Marginal(depth=4, costs=COSTS, memory=0.999)
    for _ in range(1500):
        rows = [drawn(random, lambda q: 0.6, 4, 0.98) for _ in range(2)]  # certain, often wrong
        rule.update(outcome([scores for scores, _ in rows], [path for _, path in rows]))
    learned = [chance(*rule.survival.lines[depth - 1], depth * math.log(0.985))
               for depth in range(1, 5)]  # fmt: skip
    assert learned == pytest.approx([0.6**depth for depth in range(1, 5)], abs=0.06)
    assert rule.onward[0] / rule.onward[1] == pytest.approx(0.6, abs=0.05)


def test_a_staircase_costs_the_next_step_and_grows_beyond_the_last():
    stair = Staircase([[2, 1.0], [8, 3.0]])
    assert [stair(size) for size in (1, 2, 3, 8, 16)] == [1, 1, 3, 3, 6]
    for wrong in ([], [[2, 1.0], [2, 3.0]], [[0, 1.0]], [[1, math.nan]], [[1, 2, 3]]):
        with pytest.raises(AssertionError):
            Staircase(wrong)


def test_running_averages_forget_outliers_and_invite_what_is_unknown():
    costs = Averages()

    def seconds(*sizes: int) -> list[float]:
        return [costs(size) for size in sizes]

    assert seconds(1, 64) == [0, 0]
    for measured in (9.0, 1.0, 1.0):
        costs.learn(4, measured)
    assert seconds(3, 4, 5, 64) == [0, 1, 1, 1]
    for measured in (5.0, 2.0, 2.0):
        costs.learn(12, measured)
    assert seconds(4, 6, 8, 12, 16, 4096) == [1, 1, 1, 2, 2, 2]
    costs.learn(4, 1000.0)
    assert 1 < costs(4) < 1.2
    for _ in range(200):
        costs.learn(4, 3.0)
    assert seconds(4, 12) == [2, 2]  # a smaller forward costs no more than a larger one


def test_beyond_the_last_size_averages_are_in_proportion():
    costs = Averages()
    for _ in range(3):
        costs.learn(8192, 3.0)
    assert [costs(size) for size in (4096, 8192, 16384)] == [1.5, 3.0, 6.0]


def shapes(nodes: int, ranks: int):
    """All trees of this many drafted nodes whose ranks are not skipped, as lists of paths."""
    for parents in product(*(range(n) for n in range(1, nodes + 1))):
        seen, paths = [0] * (nodes + 1), [()]
        for parent in parents:
            paths.append((*paths[parent], seen[parent]))
            seen[parent] += 1
        if max(seen) <= ranks:
            yield paths


def tokens(paths, rates) -> float:
    """Expected tokens of a cycle."""
    return sum(math.prod(rates[r] for r in path) for path in paths)


def paths_of(template) -> list[tuple[int, ...]]:
    """The rank paths of a template's nodes, the root first."""
    paths = [()]
    for parent, rank in zip(template.parents, template.ranks, strict=True):
        paths.append((*paths[parent], rank))
    return paths


RATES = st.lists(st.floats(0, 0.6), min_size=1, max_size=3)


@settings(max_examples=30)
@given(RATES, st.integers(1, 6), st.integers(0, 5))
def test_sequoias_programme_finds_the_best_tree(rates, budget, depth):
    made = paths_of(best_shape(rates, budget, depth))
    best = max(tokens(p, rates) for n in range(budget) for p in shapes(n, len(rates))
               if max(map(len, p)) <= depth)  # fmt: skip
    assert len(made) <= budget and max(map(len, made)) <= depth
    assert tokens(made, rates) == pytest.approx(best)
    assert all(path[-1] == 0 or (*path[:-1], path[-1] - 1) in made for path in made[1:])


@settings(max_examples=30)
@given(RATES, st.lists(st.floats(0.1, 1), min_size=5, max_size=5), st.floats(0, 0.5))
def test_sequoias_programme_finds_the_fastest_tree(rates, rises, level):
    rising = np.cumsum(rises).tolist()
    costs = Costs(Staircase([[1, level]]), Staircase(list(enumerate(rising, 1))))
    made = paths_of(best_shape(rates, 5, 4, costs))

    def speed(paths) -> float:
        seconds = max(map(len, paths)) * level + rising[len(paths) - 1]
        return tokens(paths, rates) / seconds

    assert speed(made) == pytest.approx(
        max(speed(paths) for n in range(5) for paths in shapes(n, len(rates)))
    )


def test_sequoia_drafts_nothing_where_that_is_fastest():
    dear = {"draft": [[1, 9.0]], "verify": [[64, 1.0]]}
    assert make_rule("sequoia", costs=dear).plan_ == AUTOREGRESSIVE


def test_acceptance_is_counted_by_rank():
    counter = RankCounter(ranks=3)
    half, none = math.log(0.5), -math.inf
    #     root -> 1, 2, 3;  2 -> 4, 5;  path 2, 5 and then a leaf
    counter(outcome([[0.0] + [half] * 5], [[2, 5]], [[0, 0, 0, 0, 2, 2]]))
    assert (counter.tried, counter.accepted) == ([2, 2, 1], [0, 2, 0])
    counter(outcome([[0.0, half, none]], [[1]], [[0, 0, 0]]))  # node 2 is padding
    assert (counter.tried, counter.accepted) == ([3, 2, 1], [1, 2, 0])
    assert counter.rates == [1 / 3, 1.0, 0.0]


def test_acceptance_by_rank_is_measured_on_a_wide_run_and_serves_sequoia():
    counter = RankCounter(ranks=3)
    decoder = SpeculativeDecoder(pair_of("near"), make_rule("beam", depth=3, width=3, budget=40))
    decoder.generate(PROMPTS, watch=counter, max_new_tokens=20)
    rates = counter.rates
    assert rates[0] > max(rates[1:]) and sum(rates) <= 1
    shape = make_rule("sequoia", acceptance=rates, budget=9, depth=4).plan_.template
    assert shape is not None and 1 <= len(shape.parents) <= 8
