"""A policy's network asked where its features are made, against the same one asked by Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruling import COSTS
from small import pair_of

from policies.rules import make_rule
from policies.rules.doubt import Confidence, Entropy
from policies.rules.opt_tree import OptTree
from spec_core import Menu, MenuPolicy, Network, Plan, SpeculativeDecoder, StopPolicy
from spec_core.doubt import Doubt
from spec_core.features import FEATURES, LEVEL_FEATURES

pytest.importorskip("numba")
WIDTH = len(FEATURES) + len(LEVEL_FEATURES)
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
        found.append((outcome.tokens, outcome.drafted, tree.tokens.tolist(), tree.scores.tolist()))

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


@settings(max_examples=25)
@given(RULES, st.sampled_from([0.0, 1.0]))
def test_rules_of_chains_end_drafts_as_they_would_answer(rule, temperature):
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
    tree = Asked(Plan(4, 2, budget=7), network(0))  # a tree's levels are asked about
    told(tree, 0.0)
    assert tree.questions > 0


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
        found.append((plans, policy.extractor.requests[0].tobytes()))
    assert found[0] == found[1]


def test_python_is_asked_at_a_texts_beginning_only(monkeypatch):
    asked, cycles, decide = [], [], Network.decide
    monkeypatch.setattr(Network, "decide", lambda self, x: asked.append(len(x)) or decide(self, x))
    chains = Menu.of(["ar", "chain-3", "chain-8@0.05"])
    policy = MenuPolicy(chains, network(1, len(FEATURES), len(chains)))
    decoder = SpeculativeDecoder(pair_of("near"), policy)
    decoder.generate([[3, 1, 4]], cycles.append, max_new_tokens=40)
    assert asked == [1, 1] and len(cycles) > 5
