"""The live environments show what exported policies see, and repeat from a seed."""

from __future__ import annotations

import numpy as np
import pytest
from live import (
    BUDGETS,
    HEADS,
    MENU,
    NEW,
    PROMPTS,
    heads,
    random_actions,
    several,
    single,
)
from small import pair_of

from spec_core import SpeculativeDecoder
from spec_core.features import LEVEL_FEATURES, NAMES, TREE_FEATURES
from spec_core.learned import MenuPolicy, StopPolicy, TrimPolicy
from spec_core.menu import read_name


class Recording:
    """A chooser that keeps its inputs and decides by a rule."""

    kind, inputs = "recording", 0

    def __init__(self, outputs: int) -> None:
        self.outputs, self.seen = outputs, []

    def choose(self, features):
        self.seen.append(features.copy())
        return rule(features, self.outputs)

    def decide(self, features):
        return self.choose(features).tolist()


def rule(features: np.ndarray, choices: int) -> np.ndarray:
    """Any function of every bit of the features."""
    return features.view(np.int32).astype(np.int64).sum(-1) % choices


def exported(head: str, projections: int):
    """The policy of a head around a recording chooser."""
    if head == "menu":
        return MenuPolicy(MENU, Recording(len(MENU)), projections)
    plan = read_name(HEADS[head])
    if head == "stop":
        return StopPolicy(plan, Recording(2), projections)
    return TrimPolicy(plan, BUDGETS, Recording(len(BUDGETS)), projections)


@heads
@pytest.mark.parametrize("temperature,projections", [(0.0, 0), (1.0, 5)])
def test_features_are_those_of_the_exported_policy(head, temperature, projections):
    env = single(head, temperature=temperature, projections=projections, shuffle=False)
    extra = {"menu": 0, "stop": len(LEVEL_FEATURES), "verify": len(TREE_FEATURES)}[head]
    assert env.observation_space.shape == (len(NAMES) + projections + extra,)
    seen: dict[str, list[np.ndarray]] = {}
    features, info = env.reset(seed=3)
    name = info["prompt_id"]
    while len(seen) < 4:
        seen.setdefault(name, []).append(features)
        features, _, over, _, _ = env.step(rule(features, int(env.action_space.n)))
        if over:
            features, info = env.reset()
            name = info["prompt_id"]
    for prompt in PROMPTS[:3]:
        policy = exported(head, projections)
        SpeculativeDecoder(pair_of("near"), policy, max_nodes=16).generate(
            [prompt["prompt"]], ids=[prompt["id"]], seed=3, max_new_tokens=NEW,
            temperature=temperature,
        )  # fmt: skip
        right = np.concatenate(policy.chooser.seen)
        assert np.stack(seen[prompt["id"]]).tobytes() == right.tobytes()


@heads
def test_a_batchs_features_are_those_of_the_exported_policy(head):
    env, policy = several(head, shuffle=False), exported(head, 0)
    SpeculativeDecoder(pair_of("near"), policy, max_nodes=16).generate(
        [p["prompt"] for p in PROMPTS[:3]], ids=[p["id"] for p in PROMPTS[:3]], seed=3,
        max_new_tokens=NEW,
    )  # fmt: skip
    features, ended = env.reset(seed=3)[0], np.zeros(3, bool)
    for right in policy.chooser.seen:
        assert features.tobytes() == right.tobytes()
        actions = rule(features, int(env.single_action_space.n))
        features, _, _, _, info = env.step(actions)
        ended |= info["ended"]
        if ended.any():
            break
    assert ended.any()


@heads
def test_a_seed_repeats_everything_but_the_clock(head):
    def run(env, seed: int) -> list:
        features, info = env.reset(seed=seed)
        kept = [features.tobytes(), list(info["prompt_id"])]
        for actions, _ in zip(random_actions(env), range(16), strict=False):
            features, _, over, _, info = env.step(actions)
            kept += [features.tobytes(), over.tolist()]
            kept += [info[k].tolist() for k in ("tokens", "accepted", "depth", "prompt_id")]
        return kept

    env = several(head, temperature=1.0)
    first = run(env, 5)
    assert first == run(env, 5) == run(several(head, temperature=1.0), 5)
    assert first != run(env, 6)
