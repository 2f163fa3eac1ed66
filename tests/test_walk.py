"""Machine code for noise and walks is what torch does; a line is a chain of one text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, closure, random_parents

from spec_core.level import LevelView, LineView
from spec_core.noise import NoiseWindow, gumbel, uniform
from spec_core.rows import Machine, Torch
from spec_core.sampling import Sampling
from spec_core.tree import NOTHING, Line, Tree

pytest.importorskip("numba")
VOCAB = 23
samplings = st.builds(
    Sampling, st.sampled_from([0.0, 0.6, 1.0, 3.0]), st.sampled_from([0, 0, 1, 4, VOCAB, 99]),
    st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.1]),
)  # fmt: skip


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**6), st.integers(0, 3))
def test_noise_is_that_of_torch(seed, position, stream):
    seeds, positions = torch.tensor([[seed], [seed // 3]]), torch.tensor([[position], [7]])
    right = uniform(seeds, positions, 500, stream).log_().neg_().log_().neg_().float()
    found = gumbel(seeds, positions, 500, stream)
    assert found.shape == right.shape and torch.allclose(found, right, rtol=2e-7, atol=0)


def test_one_text_has_its_noise_as_an_array():
    window = NoiseWindow(VOCAB, 0)
    assert isinstance(window.found([5], [3], 4, CPU), np.ndarray)
    both = window.at([5, 6], [3, 9], 4, CPU)
    assert torch.equal(both[:1], NoiseWindow(VOCAB, 0).at([5], [3], 4, CPU))


def grown(seed: int, nodes: int, batch: int, chain: bool) -> tuple[torch.Tensor, Tree]:
    """Logits and trees whose nodes often carry what the target wants."""
    noise = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(batch, nodes, VOCAB, generator=noise)
    if chain:
        up = [[max(0, n - 1) for n in range(nodes)]] * batch
    else:
        up = [random_parents(nodes, seed + b) for b in range(batch)]
    depths = torch.stack([closure(row).sum(1) - 1 for row in up])
    tokens = torch.full((batch, nodes), NOTHING)
    for b, row in enumerate(up):
        for node in range(1, nodes):
            mine = logits[b, row[node]].sort(descending=True).indices.tolist()
            taken = {int(tokens[b, n]) for n in range(1, node) if row[n] == row[node]}
            tokens[b, node] = next(token for token in mine if token not in taken)
    tokens[:, 0] = 0
    dead = torch.zeros(batch, nodes, dtype=torch.bool)
    dead[0, -1] = nodes > 1 and not chain
    slots = torch.arange(nodes).expand(batch, -1).masked_fill(dead, -1)
    parents = torch.tensor(up).masked_fill(dead, 0)
    tokens = tokens.masked_fill(dead, NOTHING)
    return logits, Tree(
        tokens, parents, depths, torch.zeros(batch, nodes), slots, int(depths.max()), chain
    )


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 3), st.booleans(), samplings)
def test_a_walk_is_that_of_torch(seed, nodes, batch, chain, sampling):
    logits, tree = grown(seed, nodes, batch, chain)
    noise = None
    if not sampling.greedy:
        seeds, starts = list(range(batch)), [seed] * batch
        noise = NoiseWindow(VOCAB, 0).at(seeds, starts, tree.depth + 1, CPU)
    right = Torch().walk(logits, tree, noise, sampling)
    assert Machine().walk(logits, tree, noise, sampling) == right
    for b in range(batch):  # alone, too
        names = ("tokens", "parents", "depths", "scores", "expanded")
        parts = [getattr(tree, name)[b : b + 1] for name in names]
        own = None if noise is None else noise[b : b + 1].numpy()
        alone = Machine().walk(
            logits[b : b + 1].numpy(), Tree(*parts, tree.depth, chain), own, sampling
        )
        assert alone == right[b : b + 1]


@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from([math.nan, -math.nan, math.inf]))
def test_a_number_that_is_none_is_noticed_wherever_it_is(seed, nodes, bad):
    logits, tree = grown(seed, nodes, 2, False)
    place = seed % nodes
    spoiled, empty, impossible = logits.clone(), logits.clone(), logits.clone()
    spoiled[1, place, seed % VOCAB] = bad
    empty[1, place] = -math.inf
    impossible[:, :, 1:-1] = -math.inf
    for sampling in (Sampling(), Sampling(0.7, 3, 0.9)):
        noise = None if sampling.greedy else torch.zeros(2, nodes, VOCAB)
        first, (path, slots, tokens, drafted, sound) = Torch().walk(logits, tree, noise, sampling)
        assert sound
        cut = [0, *path].index(place) if place in [0, *path] else None  # or it is never met
        ended = (path[:cut], slots[:cut], tokens[:cut], drafted, cut is None)
        for kind in (Machine(), Torch()):
            assert kind.walk(spoiled, tree, noise, sampling) == [first, ended]
            assert kind.walk(empty, tree, noise, sampling) == [first, ended]
            assert all(found[4] for found in kind.walk(impossible, tree, noise, sampling))


def test_the_first_of_equals_is_taken():
    tree = Line([3], [0.0], 0)
    logits, noise = torch.zeros(1, 1, VOCAB), torch.zeros(1, 1, VOCAB)
    logits[..., [4, 9]] = 1.0
    for sampling, sound in ((Sampling(), None), (Sampling(1.0, 1), noise), (Sampling(1.0), noise)):
        assert Machine().walk(logits, tree, sound, sampling)[0][2] == [4]
    assert Machine().walk(logits, tree, noise, Sampling(1.0, 0, 0.01))[0][2] == [4]


@given(st.integers(1, 8), st.data())
def test_a_line_is_a_chain(nodes, data):
    held, tokens = data.draw(st.integers(0, nodes)), list(range(nodes))
    scores = [0.0, *(-0.5 * n for n in range(1, nodes))]
    line = Line(tokens, scores, held)
    right = Tree.line(torch.tensor([tokens]), torch.tensor([scores]), held)
    assert [part is None or part.tolist() for part in line.arrays] == [
        part is None or part.tolist() for part in right.arrays
    ]
    assert line.nodes == right.nodes and line.counts == right.counts and line.read() == right.read()
    for name in ("tokens", "parents", "depths", "scores", "expanded", "ancestors"):
        assert torch.equal(getattr(line, name), getattr(right, name))
    assert (line.depth, line.chain, line.drafts) == (right.depth, right.chain, right.drafts)
    cut = line.cut([max(1, nodes - 2)])
    assert torch.equal(cut.tokens, right.cut([max(1, nodes - 2)]).tokens)
    with pytest.raises(AttributeError):
        _ = line.nothing  # type: ignore[attr-defined]


def test_a_view_of_a_line_is_a_view():
    path, logs = [0.0, -0.5, -1.25], torch.randn(1, 1, VOCAB).log_softmax(-1)
    pool = [torch.tensor([[score]]) for score in path]
    right = LevelView(2, pool[-1], 1, pool, logs, [[[score]] for score in path], [True])
    for found in (logs, logs.numpy()):
        view = LineView(path[:], found)
        assert (view.depth, view.width, view.asked) == (right.depth, right.width, right.asked)
        assert view.numbers == right.numbers and torch.equal(view.scores, right.scores)
        assert all(map(torch.equal, view.pool, right.pool)) and len(view.pool) == 3
        assert torch.equal(view.logs, logs)
        assert view.near is found
