"""Machine code against what it stands for: numpy, plain Python, and each row by itself."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_core.chooser import Network, Table
from spec_core.extractor import CHAIN
from spec_core.facts import Facts, drawn, read, told
from spec_core.features import FEATURES, FRESH, HISTORY, along, fill, follow, known, moved
from spec_core.layers import Layers
from spec_core.quick import compiled, masses

pytest.importorskip("numba")
from spec_core.packed import Packed

seeds = st.integers(0, 2**32 - 1)
machine = compiled(lambda row: masses(row))


@st.composite
def logits(draw) -> np.ndarray:
    """A row over some vocabulary, some of it impossible."""
    size, chance = draw(st.integers(2, 100)), np.random.default_rng(draw(seeds))
    row = (chance.normal(size=size) * draw(st.sampled_from([0.01, 3, 300]))).astype(np.float32)
    row[1:][chance.random(size - 1) < draw(st.sampled_from([0, 0.5, 1]))] = -np.inf
    return chance.permutation(row)


@st.composite
def trees(draw):
    """Scores, parents, depths and an accepted path of a tree, one node and dead ones included."""
    nodes, chance = draw(st.integers(1, 12)), np.random.default_rng(draw(seeds))
    parents, depths, scores = np.zeros(nodes, int), np.zeros(nodes, int), np.zeros(nodes)
    for node in range(1, nodes):
        parents[node] = chance.integers(node)
        depths[node] = depths[parents[node]] + 1
        scores[node] = scores[parents[node]] - chance.exponential()
    stop, path = int(chance.integers(nodes)), []
    while stop:
        path, stop = [stop, *path], int(parents[stop])
    dead = (chance.random(nodes) < 0.2) & ~np.isin(np.arange(nodes), [0, *path])
    scores[dead] = -np.inf
    return scores.astype(np.float32), parents, depths, path


def address(*arrays: np.ndarray) -> list[int]:
    return [array.ctypes.data for array in arrays]


@given(logits())
def test_masses_are_those_of_numpy(row):
    assert np.allclose(machine(row), masses(row), rtol=1e-5, atol=1e-6)


@given(trees(), logits(), seeds)
def test_facts_are_the_same_with_and_without_numba(tree, row, seed):
    scores, parents, depths, path = tree
    shape = *address(scores, parents, depths), len(scores), path[-1] if path else 0, len(path)
    assert drawn(*shape) == drawn.py_func(*shape)
    token = seed % len(row)
    both = told(row, token), told.py_func(row, token)
    assert np.allclose(*both, rtol=1e-5, atol=1e-5)


@given(trees())
def test_a_chain_needs_no_parents_and_depths(tree):
    scores = tree[0].copy()
    nodes = np.arange(len(scores))
    parents = np.maximum(nodes - 1, 0)
    for stop in nodes.tolist():
        if scores[stop] > -np.inf:
            where = address(scores, parents, nodes)
            whole = drawn(*where, len(nodes), stop, stop)
            assert drawn(where[0], 0, 0, len(nodes), stop, stop) == whole


@given(st.lists(st.tuples(trees(), logits()), min_size=1, max_size=6), seeds)
def test_a_history_moves_on_by_the_same_bits_as_facts_move_it(rounds, seed):
    """Decoding's one call is what replay does with arrays."""
    mine, theirs, rows = FRESH.copy(), FRESH.copy(), np.zeros((2, 1, len(FEATURES)), np.float32)
    for (scores, parents, depths, path), row in rounds:
        tree = *address(scores, parents, depths), len(scores), path[-1] if path else 0, len(path)
        source = *tree, len(scores) - 1, *address(row), len(row), seed % len(row)
        with np.errstate(invalid="ignore"):  # less than nothing
            theirs = np.array(moved(theirs, Facts(*np.array(read(*source)))))
        follow(rows[0], 0, mine, 5, 6, 2, 0.5, *source)
        fill(rows[1], 0, mine, 5, 6, 2, 0.5, False)
        assert mine.tobytes() == theirs.tobytes() or np.isinf(row).any()
        assert rows[0].tobytes() == rows[1].tobytes()


@given(st.integers(1, 9999), st.integers(0, 999), st.integers(1, 99), st.booleans(), seeds)
def test_a_row_is_filled_with_history_and_context(length, remaining, batch, first, seed):
    history = np.random.default_rng(seed).normal(size=HISTORY)
    rows = np.full((3, len(FEATURES) + 2), 7, np.float32)
    fill(rows, 1, history, length, remaining, batch, 0.5, first)
    right = [*history, *known(length, remaining, math.log2(batch), 0.5, first)]
    assert np.array_equal(rows[1, : len(FEATURES)], np.array(right, np.float32))
    assert (rows[[0, 2]] == 7).all() and (rows[:, len(FEATURES) :] == 7).all()


@given(st.lists(st.floats(-9, 0, width=32), min_size=1, max_size=9), logits(), st.booleans(), seeds)
def test_a_chain_is_followed_by_the_same_bits_from_arrays(scores, row, padded, seed):
    """With and without room behind the rows of logits."""
    nodes, chance = len(scores), np.random.default_rng(seed)
    path, hit = np.array([[0.0, *scores[1:]]], np.float32), int(chance.integers(nodes))
    room = np.stack([chance.permutation(row) for _ in range(nodes)])[None]
    logits = np.pad(room, ((0, 0), (0, 0), (0, 3)))[:, :, : len(row)] if padded else room
    rows, mine = np.zeros((2, 1, len(FEATURES)), np.float32), np.tile(FRESH, (2, 1))
    where = address(path, room[0, hit])
    source = where[0], 0, 0, nodes, hit, hit, nodes - 1, where[1], len(row), seed % len(row)
    follow(rows[0], 0, mine[0], 5, 6, 1, 0.5, *source)
    said = 0, hit, hit, nodes - 1, seed % len(row)
    along(rows[1], mine[1], 5, 6, 0.5, path, CHAIN, logits, *said)
    assert mine[0].tobytes() == mine[1].tobytes() and rows[0].tobytes() == rows[1].tobytes()


@given(trees(), logits(), seeds)
def test_a_tree_is_followed_by_the_same_bits_from_arrays(tree, row, seed):
    scores, parents, depths, path = tree
    nodes, token, stop, hit = len(scores), seed % len(row), path[-1] if path else 0, len(path)
    room = np.tile(row, (1, nodes, 1))
    numbers = np.stack((depths, parents, depths, depths))[:, None].astype(np.int64)
    rows, mine = np.zeros((2, 1, len(FEATURES)), np.float32), np.tile(FRESH, (2, 1))
    where = *address(scores, parents, depths), nodes, stop, hit, nodes - 1, *address(row), len(row)
    follow(rows[0], 0, mine[0], 5, 6, 1, 0.5, *where, token)
    said = 0, stop, hit, nodes - 1, token
    along(rows[1], mine[1], 5, 6, 0.5, scores[None].astype(np.float32), numbers, room, *said)
    assert mine[0].tobytes() == mine[1].tobytes() and rows[0].tobytes() == rows[1].tobytes()


sizes = st.lists(st.integers(1, 40), min_size=2, max_size=4)


def parts(sizes: list[int], seed: int):
    """Weights and biases."""
    chance, pairs = np.random.default_rng(seed), list(zip(sizes[1:], sizes, strict=False))
    weights = [(chance.normal(size=pair) / pair[1] ** 0.5).astype(np.float32) for pair in pairs]
    return weights, [chance.normal(size=pair[0]).astype(np.float32) for pair in pairs]


@settings(deadline=None)
@given(sizes, seeds, st.booleans(), st.integers(1, 20))
def test_layers_are_those_of_numpy_and_a_row_is_the_same_alone(sizes, seed, tanh, rows):
    packed, plain = (make(*parts(sizes, seed), tanh) for make in (Packed, Layers))
    x = np.random.default_rng(seed).normal(size=(rows, sizes[0])).astype(np.float32)
    before, whole = x.copy(), packed.scores(x)
    assert np.allclose(whole, plain.scores(x), rtol=1e-4, atol=1e-5)
    assert np.array_equal(x, before)  # what it reads it leaves alone
    for b in range(rows):
        assert packed.scores(x[b : b + 1]).tobytes() == whole[b : b + 1].tobytes()
    assert packed.best(x) == whole.argmax(1).tolist()


def test_layers_refuse_rows_that_are_not_theirs():
    packed = Packed(*parts([5, 3], 0), True)
    for rows in (np.zeros((1, 4), np.float32), np.zeros((1, 5)), np.zeros((5, 5), np.float32).T):
        with pytest.raises(AssertionError):
            packed.best(rows[:, ::2] if rows.shape == (5, 5) else rows)


@given(st.lists(st.floats(-1, 2, width=32), min_size=6, max_size=6), seeds)
def test_choosers_decide_as_they_choose(numbers, seed):
    features = np.array(numbers, np.float32).reshape(2, 3)
    edges = sorted(numbers[:2])  # hit exactly, too
    choosers = [
        Network(*parts([3, 8, 5], seed)), Table([], [], np.array(3)),
        Table([2, 0], [edges, [0.5]], np.arange(6).reshape(3, 2)),
    ]  # fmt: skip
    for chooser in choosers:
        assert chooser.decide(features) == chooser.choose(features).tolist()


@pytest.fixture
def without_numba():
    """Whatever could have been made with it is imported anew, and forgotten afterwards."""

    def take() -> dict:
        roots = ("numba", "llvmlite", "spec_core", "policies", "small", "test_features")
        return {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] in roots}

    before = take()
    sys.modules["numba"] = None
    yield
    take()
    sys.modules.update(before)


def test_all_works_without_numba(without_numba):
    """As on machines that have a GPU's libraries only."""
    import test_features as features

    from spec_core.chooser import Layers

    assert Layers.__module__ == "spec_core.layers"
    extractor, seen = features.Extractor(), 0
    for before, outcome in features.outcomes():
        assert np.isfinite(extractor.observe(before)).all()
        found = features.facts(outcome)
        for b in range(len(outcome.rows)):
            for name, value in features.slow(outcome, b).items():
                assert abs(getattr(found[b], name) - value) < 1e-4, name
        seen += 1
    assert seen > 5


def test_rules_that_learn_need_no_numba(without_numba):
    from small import pair_of

    from policies.rules import make_rule
    from spec_core import AUTOREGRESSIVE, Fixed, SpeculativeDecoder

    texts = {}
    for name in ("autoregressive", "thompson", "marginal"):
        rule = make_rule(name) if name != "autoregressive" else Fixed(AUTOREGRESSIVE)
        made = SpeculativeDecoder(pair_of("near"), rule).generate([[3, 1, 4]], max_new_tokens=20)
        texts[name], drafted = made.tokens, made.stats.drafted
        assert drafted > 0 or name == "autoregressive"
    assert texts["thompson"] == texts["marginal"] == texts["autoregressive"]
