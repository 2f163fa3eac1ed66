"""Noise is uniform, independent over seeds, positions and streams, and a function of its key."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from spec_core.noise import ACCEPT, DRAFT, RESIDUAL, TARGET, NoiseWindow, gumbel, uniform
from spec_core.sampling import Sampling
from spec_core.verifiers.base import Chance
from spec_core.verifiers.coupled import Coupled

STREAMS = [TARGET, DRAFT, ACCEPT, RESIDUAL]
CPU = torch.device("cpu")
COUNT = 4000
BASE = (11, 40, TARGET)
OTHERS = {
    "next seed": (12, 40, TARGET),
    "far seed": (-(2**63) + 11, 40, TARGET),
    "next position": (11, 41, TARGET),
    "seed and position swapped": (40, 11, TARGET),
    **{f"stream {stream}": (11, 40, stream) for stream in STREAMS[1:]},
}
seeds = st.integers(-(2**63), 2**63 - 1)


def draw(seed: int, position: int, stream: int, count: int = COUNT):
    """One row of numbers."""
    return uniform(torch.tensor([seed]), torch.tensor([position]), count, stream)[0]


@pytest.mark.parametrize("key", [BASE, *OTHERS.values()])
def test_numbers_are_uniform(key):
    numbers = draw(*key)
    assert 0 < numbers.min() and numbers.max() < 1
    assert kstest(numbers.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("stream", STREAMS)
def test_numbers_of_one_token_are_uniform_over_positions_and_over_seeds(stream):
    line, zero = torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64)
    for found in (uniform(zero, line, 3, stream), uniform(line, zero, 3, stream)):
        for token in range(3):
            assert kstest(found[:, token].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_numbers_of_two_keys_are_independent(name):
    one, other = draw(*BASE), draw(*OTHERS[name])
    for shift in (0, 1):
        shifted = other.roll(shift)
        assert torch.corrcoef(torch.stack((one, shifted)))[0, 1].abs() < 4.5 / COUNT**0.5
        cells = (8 * one).long() * 8 + (8 * shifted).long()
        assert chisquare(cells.bincount(minlength=64).numpy()).pvalue > 1e-4


@given(st.lists(st.tuples(seeds, st.integers(0, 10**6)), min_size=1, max_size=6), st.data())
def test_the_batch_and_the_count_do_not_matter(keys, data):
    stream = data.draw(st.sampled_from(STREAMS))
    column = [torch.tensor(values) for values in zip(*keys, strict=True)]
    found = uniform(*column, 9, stream)
    for row, (seed, position) in zip(found, keys, strict=True):
        assert torch.equal(row, draw(seed, position, stream, 9))
        assert torch.equal(row[:4], draw(seed, position, stream, 4))


def test_gumbel_noise_picks_tokens_by_their_chance():
    chances = torch.tensor([0.5, 0.25, 0.1875, 0.0625])
    noise = gumbel(torch.full((COUNT,), 7), torch.arange(COUNT), 4, TARGET)
    assert noise.isfinite().all()
    found = (chances.log() + noise).argmax(1).bincount(minlength=4)
    assert chisquare(found.numpy(), (chances * COUNT).numpy()).pvalue > 1e-3


def test_fewer_numbers_of_the_same_places_are_at_hand(monkeypatch):
    """On a GPU to ask for others is an upload, which waits for what is under way."""
    verifier, chance = (
        Coupled(False),
        Chance(Sampling(1.0), [3, 4], [7, 9], NoiseWindow(5, TARGET), CPU),
    )
    right = chance.target(4).clone()
    verifier.prepare(chance, 6)
    monkeypatch.setattr(torch, "tensor", None)
    assert torch.equal(chance.target(4), right) and chance.target(7).shape == (2, 7, 5)
    monkeypatch.undo()
    chance.lengths = [8, 9]
    assert torch.equal(chance.target(3)[0], right[0, 1:])
    chance.seeds = [3, 5]
    assert torch.equal(chance.target(3)[0], right[0, 1:])
    assert not torch.equal(chance.target(3)[1], right[1, :3])


steps = st.lists(st.tuples(st.integers(-3, 12), st.integers(1, 12)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(st.lists(seeds, min_size=1, max_size=3), steps, st.integers(1, 10), st.data())
def test_a_window_is_the_noise_itself(owners, moves, length, data):
    window, starts = NoiseWindow(5, TARGET, length), [20] * len(owners)
    for move, count in moves:
        starts = [start + max(0, move + row) - 2 * row for row, start in enumerate(starts)]
        if len(owners) > 1 and data.draw(
            st.booleans()
        ):  # a sequence ends, the last takes its place
            owners, starts = [owners[-1], *owners[1:-1]], [starts[-1], *starts[1:-1]]
        positions = torch.tensor(starts)[:, None] + torch.arange(count)
        right = gumbel(torch.tensor(owners)[:, None].expand_as(positions), positions, 5, TARGET)
        assert torch.equal(window.at(owners, starts, count, CPU), right)
