"""A policy's network asked where its features are made, against the same one asked by Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruling import COSTS
from small import pair_of, plans

from policies.rules import make_rule
from policies.rules.doubt import Confidence, Entropy
from policies.rules.opt_tree import OptTree
from spec_core import Menu, MenuPolicy, Network, Plan, SpeculativeDecoder, StopPolicy
from spec_core.doubt import Doubt
from spec_core.features import FEATURES, LEVEL_FEATURES, fill_level
from spec_core.judge import grown
from spec_core.level import LevelView

pytest.importorskip("numba")
WIDTH = len(FEATURES) + len(LEVEL_FEATURES)
SEEDS = st.integers(0, 999)
MENU = Menu.of(["ar", "chain-1", "chain-3", "chain-8@0.05", "beam-3x2n5"])
BANDS = st.sampled_from([Doubt(), Doubt(0.02, 0.5), Doubt(0.3, 1.0), Doubt(0.0, 0.2)])


class Other(Network):
    """Drafting asks none but plain networks by itself."""


class Asked(StopPolicy):
    """Counts the questions that reach it."""

    questions = 0

    def stop(self, level):
        self.questions += 1
        return super().stop(level)


def network(seed: int, inputs: int = WIDTH, outputs: int = 2) -> Network:
    """Random layers, as likely to stop as not."""
    chance, sizes = np.random.default_rng(seed), (inputs, 16, outputs)
    weights = [
        chance.normal(size=size).astype(np.float32) for size in ((16, inputs), (outputs, 16))
    ]
    return Network(weights, [np.zeros(size, np.float32) for size in sizes[1:]])


def told(policy: Asked, temperature: float) -> list:
    """What every cycle of a decode came to."""
    found: list = []

    def watch(outcome) -> None:
        tree = outcome.tree
        row = getattr(policy, "extractor", None) and policy.extractor.rows.tobytes()
        found.append(
            (outcome.tokens, outcome.drafted, tree.tokens.tolist(), tree.scores.tolist(), row)
        )

    decoder = SpeculativeDecoder(pair_of("near"), policy)
    decoder.generate([[3, 1, 4]], watch, max_new_tokens=40, temperature=temperature, seed=2)
    return found


@settings(max_examples=25)
@given(
    st.integers(0, 999), BANDS, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.02, 0.3]),
    st.integers(2, 9),
)  # fmt: skip
def test_the_judge_says_what_the_policy_says(seed, doubt, temperature, threshold, depth):
    plan = Plan(depth, budget=depth + 1, threshold=threshold)
    judged, like = Asked(plan, network(seed), doubt=doubt), network(seed)
    asked = Asked(plan, Other(like.weights, like.biases), doubt=doubt)
    assert judged.levels.judge is not None and asked.levels.judge is None
    assert told(judged, temperature) == told(asked, temperature)
    assert judged.questions == 0


RULES = st.one_of(
    st.builds(Entropy, st.floats(0, 2), st.integers(2, 9)),
    st.builds(Confidence, st.floats(0, 1), st.integers(2, 9)),
    st.builds(OptTree, st.just(12), st.floats(0, 1), st.integers(2, 9), st.just(1)),
)


TREES = st.builds(OptTree, st.integers(2, 20), st.floats(0, 1), st.integers(2, 6), st.just(3))


@settings(max_examples=25)
@given(RULES | TREES, st.sampled_from([0.0, 1.0]))
def test_rules_end_drafts_as_they_would_answer(rule, temperature):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule, "stop", None)  # nobody may ask
        judged = told(rule, temperature)
    rule.levels = True  # now every level is asked about
    with pytest.MonkeyPatch.context() as patch:
        answers, stop = [], rule.stop
        patch.setattr(rule, "stop", lambda level: answers.append(stop(level)) or answers[-1])
        assert told(rule, temperature) == judged
    assert answers or rule.plan_.depth < 2


LEARNING = st.one_of(
    st.builds(dict, name=st.just("thompson"), calibrated=st.booleans(), seed=st.integers(0, 99),
              edges=st.sampled_from([(), (0.5,), (0.3, 0.7, 0.9)]), depth=st.integers(2, 9),
              memory=st.sampled_from([0.9, 1.0])),
    st.builds(dict, name=st.just("marginal"), costs=st.just(COSTS), depth=st.integers(2, 9),
              trim=st.booleans(), memory=st.sampled_from([0.9, 0.995])),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(LEARNING, st.sampled_from([0.0, 1.0]))
def test_rules_that_learn_end_drafts_as_they_would_answer(arguments, temperature):
    judged, asked = (make_rule(**arguments) for _ in range(2))
    asked.levels = True  # now every level is asked about
    answers, stop = [], asked.stop
    asked.stop = lambda level: answers.append(stop(level)) or answers[-1]
    judged.stop = None  # nobody may ask
    for _ in range(2):  # in the second text they have learned
        assert told(judged, temperature) == told(asked, temperature)
    assert judged.state() == asked.state() and answers


def test_opt_tree_drafts_little_and_much():
    rules = [OptTree(40, delta, 6, 2) for delta in (0.05, 0.1, 0.2, 0.4)]
    sizes = {drafted[0] for rule in rules for _, drafted, *_ in told(rule, 0.0)}
    assert len(sizes) > 3


def test_rules_that_learn_draft_little_and_much():
    for name, more in (("thompson", {}), ("marginal", {"costs": COSTS, "trim": False})):
        lengths = {drafted[0] for _, drafted, *_ in told(make_rule(name, **more), 0.0)}
        assert len(lengths) > 3


def test_bars_end_drafts_early_and_late():
    for rules in ([Entropy(t, 8) for t in (0, 2, 9)], [Confidence(t, 8) for t in (0, 0.1, 1)]):
        lengths = {drafted[0] for rule in rules for _, drafted, *_ in told(rule, 0.0)}
        assert {1, 8} < lengths


def test_judges_stop_drafts_somewhere_and_python_is_asked_where_there_is_none():
    plan, lengths = Plan(8, budget=9), set()
    for seed in range(6):
        judged = Asked(plan, network(seed))
        lengths |= {drafted[0] for _, drafted, *_ in told(judged, 0.0)}
        assert judged.questions == 0
    assert len(lengths) > 3
    like = network(0)  # where machine code cannot ask it
    other = Asked(plan, Other(like.weights, like.biases))
    told(other, 0.0)
    assert other.questions > 0


@settings(max_examples=25)
@given(st.integers(0, 999), BANDS, st.sampled_from([0.0, 1.0]), plans())
def test_the_judge_of_a_tree_says_what_the_policy_says(seed, doubt, temperature, plan):
    judged, like = Asked(plan, network(seed), doubt=doubt), network(seed)
    asked = Asked(plan, Other(like.weights, like.biases), doubt=doubt)
    assert told(judged, temperature) == told(asked, temperature)
    assert judged.questions == 0


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4), SEEDS)
def test_features_of_a_tree_are_those_that_python_makes(shape, seed):
    """Whoever the best node's parent is; levels: nodes expanded, and children of each."""
    chance, net = np.random.default_rng(seed), network(seed).net
    levels = [np.zeros(1, np.float32)]
    for width, children in shape:
        scores = -chance.exponential(3, width * children).astype(np.float32)
        levels.append(np.where(chance.random(len(scores)) < 0.2, -np.inf, scores))
        levels[-1][chance.integers(len(scores))] = -0.5
    pool, (width, children) = [torch.tensor(scores)[None] for scores in levels], shape[-1]
    logs = torch.tensor(chance.normal(size=(1, width, 37)), dtype=torch.float32)
    rows = np.zeros((2, 1, WIDTH), np.float32)
    fill_level(rows[0], LevelView(len(shape), pool[-1], width, pool, logs))
    near = sum(map(len, levels[:-1]))
    begin = near - len(levels[-2]), near
    found = grown((rows[1], net), len(shape), begin, children, np.concatenate(levels), logs.numpy())
    assert rows[0].tobytes() == rows[1].tobytes()
    assert found == (network(seed).decide(rows[0])[0] == 1)


def test_judges_stop_trees_somewhere():
    policies = [Asked(Plan(6, 2, budget=13), network(seed)) for seed in range(6)]
    nodes = {drafted[0] for policy in policies for _, drafted, *_ in told(policy, 0.0)}
    assert len(nodes) > 3 and not any(policy.questions for policy in policies)


@settings(max_examples=15)
@given(st.integers(0, 999), st.sampled_from([0.0, 1.0]), st.booleans(), st.integers(1, 2))
def test_a_menu_is_picked_from_as_python_picks(seed, temperature, together, batch):
    """After chains and trees, for one text or several, of which one ends first."""
    decoder, found = SpeculativeDecoder(pair_of("near")), []
    like = network(seed, len(FEATURES), len(MENU))
    for kind in (Network, Other):
        policy = MenuPolicy(MENU, kind(like.weights, like.biases), together=together)
        decoder.policy, plans = policy, []
        for prompt in ([3, 1, 4], [1]):  # the policy is not made anew for a text
            decoder.generate(
                [prompt, [5]][:batch], lambda outcome, plans=plans: plans.append(outcome.plans),
                max_new_tokens=40, temperature=temperature, seed=seed,
            )  # fmt: skip
        found.append((plans, policy.extractor.requests[0][0].tobytes()))
    assert found[0] == found[1]


def test_python_is_asked_at_a_texts_beginning_only(monkeypatch):
    asked, cycles, decide = [], [], Network.decide
    monkeypatch.setattr(Network, "decide", lambda self, x: asked.append(len(x)) or decide(self, x))
    chains = Menu.of(["ar", "chain-3", "chain-8@0.05"])
    policy = MenuPolicy(chains, network(1, len(FEATURES), len(chains)))
    decoder = SpeculativeDecoder(pair_of("near"), policy)
    decoder.generate([[3, 1, 4]], cycles.append, max_new_tokens=40)
    assert asked == [1, 1] and len(cycles) > 5
