"""Choosers, menus and exported policies: back from disk they decide alike; tampering is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forging import forged
from hypothesis import given, settings
from hypothesis import strategies as st
from small import pair_of, plans

from spec_core import (
    AUTOREGRESSIVE,
    DEFAULT_MENU,
    Fixed,
    Menu,
    MenuPolicy,
    Network,
    Plan,
    SpeculativeDecoder,
    StopPolicy,
    Table,
    TrimPolicy,
    load_policy,
    plan_name,
)
from spec_core.features import FEATURES, LEVEL_FEATURES, NAMES, TREE_FEATURES
from spec_core.menu import read_name, read_plan

PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
WIDTH = len(FEATURES)


def network(inputs: int, outputs: int, seed: int = 0, activation: str = "tanh") -> Network:
    """Random layers."""
    chance = np.random.default_rng(seed)
    sizes = [inputs, 8, outputs]
    shapes = list(zip(sizes[1:], sizes, strict=False))
    weights = [chance.normal(size=shape).astype(np.float32) for shape in shapes]
    return Network(
        weights, [chance.normal(size=o).astype(np.float32) for o, _ in shapes], activation
    )


def policies(seed: int = 0):
    """One learned policy of every kind."""
    table = Table([NAMES.index("hit_slow")], [[0.3, 0.6]], np.array([0, 1, 2]))
    beam = Plan(4, width=2, budget=9)
    return {
        "network": MenuPolicy(DEFAULT_MENU, network(WIDTH, len(DEFAULT_MENU), seed)),
        "hidden": MenuPolicy(DEFAULT_MENU, network(WIDTH + 4, len(DEFAULT_MENU), seed), 4),
        "table": MenuPolicy(DEFAULT_MENU, table),
        "stop": StopPolicy(Plan(6, budget=7), network(WIDTH + len(LEVEL_FEATURES), 2, seed)),
        "stop beam": StopPolicy(beam, network(WIDTH + len(LEVEL_FEATURES), 2, seed, "relu")),
        "verify": TrimPolicy(beam, [1, 3, 9], network(WIDTH + len(TREE_FEATURES), 3, seed)),
    }


KINDS = list(policies())


class Kept:
    """A chooser that keeps what it read and chose."""

    def __init__(self, inner) -> None:
        self.inner, self.seen = inner, []

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def decide(self, features):
        choice = self.inner.decide(features)
        self.seen.append((features.copy(), choice))
        return choice


def decoded(policy, temperature: float = 0.0, batch: int = 3):
    """Texts under a policy, and what its chooser read and chose."""
    policy.chooser = kept = Kept(policy.chooser)
    decoder = SpeculativeDecoder(pair_of("near"), policy)
    made = decoder.generate(PROMPTS[:batch], max_new_tokens=24, seed=3, temperature=temperature)
    policy.chooser = kept.inner
    return made.tokens, kept.seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_learned_policies_give_the_plain_text_and_come_back_from_disk(tmp_path, kind, batch):
    plain = SpeculativeDecoder(pair_of("near"), Fixed(AUTOREGRESSIVE))
    right = plain.generate(PROMPTS[:batch], max_new_tokens=24, seed=3, temperature=1.0).tokens
    policy = policies()[kind]
    texts, seen = decoded(policy, 1.0, batch)
    assert texts == right and seen
    policy.save(tmp_path)
    again, seen_again = decoded(load_policy(tmp_path), 1.0, batch)
    assert again == right
    for (features, choices), (others, same) in zip(seen, seen_again, strict=True):
        assert np.array_equal(features, others) and choices == same
    assert len({tuple(c) for _, c in seen}) > 1 or kind == "table"


HIDDEN = ("gymnasium", "stable_baselines3", "sb3_contrib", "hydra", "omegaconf", "wandb",
          "policies", "envs", "harness", "reports")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "stop", "verify"])
def test_a_policy_loads_and_decodes_without_learners_or_configuration(tmp_path: Path, kind):
    policy = policies()[kind]
    policy.save(tmp_path)
    script = f"""
import sys
sys.modules |= dict.fromkeys({HIDDEN})
from spec_core import SpeculativeDecoder, autoregressive, load_pair, load_policy
policy, pair = load_policy({str(tmp_path)!r}), load_pair()
print(type(policy).__name__)
for chosen in (policy, autoregressive()):
    print(SpeculativeDecoder(pair, chosen).generate("def add(a, b):", max_new_tokens=16).tokens)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    name, text, plain = run.stdout.splitlines()
    assert name == type(policy).__name__ and text == plain != "[[]]"


CHANGES = {
    "version": lambda c: c.update(features=0),
    "menu": lambda c: c["menu"].pop(),
    "no ar": lambda c: c["menu"].pop(0),
    "twice": lambda c: c["menu"].append(c["menu"][0]),
    "kind": lambda c: c.update(kind="stop"),
    "chooser": lambda c: c["chooser"].update(kind="pickle"),
    "activation": lambda c: c["chooser"].update(activation="softmax"),
    "projections": lambda c: c.update(projections=3),
}


HARMLESS = {  # to read, so that only the seal can tell
    "swapped": lambda c: c["menu"].reverse(),
    "deeper": lambda c: c["menu"][-1].update(depth=c["menu"][-1]["depth"] + 1),
    "together": lambda c: c.update(together=True),
    "hash": lambda c: c.update(sha256="0"),
    "more": lambda c: c.update(hue=1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_impossible_policy_is_refused(tmp_path, change):
    policies()["network"].save(tmp_path)
    load_policy(tmp_path)
    forged(tmp_path, CHANGES[change])
    with pytest.raises(ValueError, match="not a valid policy"):
        load_policy(tmp_path)


@pytest.mark.parametrize("change", HARMLESS)
def test_a_tampered_policy_is_refused(tmp_path, change):
    policies()["network"].save(tmp_path)
    forged(tmp_path, lambda content: None)
    load_policy(tmp_path)
    forged(tmp_path, HARMLESS[change], sealed=False)
    with pytest.raises(ValueError, match="not what was exported together"):
        load_policy(tmp_path)


def test_changed_or_missing_weights_are_refused(tmp_path):
    policies()["network"].save(tmp_path)
    file = tmp_path / "policy.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="not what was exported together"):
        load_policy(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="not a valid policy"):
        load_policy(tmp_path)


@given(plans())
def test_names_of_plans_are_read_back(plan):
    if plan.template is None:
        again = read_name(plan_name(plan))
        assert plan_name(again) == plan_name(plan)
        if plan.depth and plan.budget > 1:
            assert (again.depth, again.width) == (plan.depth, plan.width)
            chain = plan_name(plan).startswith("chain")
            assert again.budget == (min(plan.budget, plan.depth + 1) if chain else plan.budget)
            assert abs(again.threshold - plan.threshold) < 1e-6
            assert (again.children or again.width) == (plan.children or plan.width)


@pytest.mark.parametrize("name", ["", "chain", "chain-x", "beam-2x", "chain-3@2", "AR", "chain-3 "])
def test_names_that_are_no_plans_are_refused(name):
    with pytest.raises(ValueError, match="is no plan"):
        read_plan(name)


def test_menus_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="lacks the plain"):
        Menu.of(["chain-2"])
    with pytest.raises(ValueError, match="twice"):
        Menu.of(["ar", "chain-2", "chain-2"])
    menu = Menu.of(["ar", "beam-4x8n40"])
    menu.check(64, 100)
    with pytest.raises(ValueError, match="beam-4x8n40 verifies 41 nodes, 16 are the most"):
        menu.check(16, 100)
    with pytest.raises(ValueError, match="more children"):
        menu.check(64, 5)
    assert Menu.of(menu.content).key == menu.key != DEFAULT_MENU.key


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(0, 99))
def test_a_network_decides_row_by_row(rows, seed):
    made = network(WIDTH, 5, seed)
    features = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)
    whole = made.choose(features)
    assert whole.tolist() == [int(made.choose(features[i : i + 1])[0]) for i in range(rows)]


def test_a_table_takes_the_cell_of_every_row():
    table = Table([0, 2], [[0.5], [1.0, 2.0]], np.arange(6).reshape(2, 3))
    features = np.array([[0, 9, 0], [0.5, 9, 1.0], [0.4, 9, 1.9], [1, 9, 2.5]], np.float32)
    assert table.choose(features).tolist() == [0, 4, 1, 5]
    assert Table([], [], np.array(3)).choose(features).tolist() == [3] * 4


def test_a_choice_that_no_feature_changes_is_made_without_them(monkeypatch):
    weights = [np.zeros((3, WIDTH), np.float32)]
    policy = MenuPolicy(Menu.of(["ar", "chain-2", "chain-3"]), Network(weights, [np.eye(3)[2]]))
    assert policy.always == 2 and network(WIDTH, 3).constant is None
    monkeypatch.setattr(policy.extractor, "observe", None)
    made = SpeculativeDecoder(pair_of("near"), policy).generate(PROMPTS, max_new_tokens=12)
    same = SpeculativeDecoder(pair_of("near"), Fixed(Plan(3, budget=4)))
    assert made.tokens == same.generate(PROMPTS, max_new_tokens=12).tokens
    assert made.stats.drafted > 0
