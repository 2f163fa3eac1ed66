"""Truncation is that of transformers; numbers that make no sense are refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from spec_core.sampling import Sampling

VOCAB = 50


def logits(seed: int, rows: int = 4, scale: float = 3.0):
    """Random logits [rows, VOCAB]."""
    return scale * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def reference(values, temperature: float, top_k: int, top_p: float):
    """What transformers samples from."""
    values = values / temperature
    if top_k:
        values = TopKLogitsWarper(top_k)(None, values)
    return TopPLogitsWarper(top_p)(None, values) if top_p < 1 else values


@settings(max_examples=150)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    st.sampled_from([0, 1, 2, 5, 20, VOCAB - 1, VOCAB, VOCAB + 9]),
    st.sampled_from([1e-6, 0.1, 0.5, 0.8, 0.95, 1.0]),
)
def test_truncation_is_that_of_transformers(seed, temperature, top_k, top_p):
    values = logits(seed)
    found = Sampling(temperature, top_k, top_p).shape(values)
    right = reference(values, temperature, top_k, top_p)
    assert torch.equal(found, right)
    assert (found.softmax(-1).sum(-1) - 1).abs().max() < 1e-5


def test_a_batch_of_trees_is_shaped_row_by_row():
    values, sampling = logits(1, 6).view(2, 3, VOCAB), Sampling(0.7, 5, 0.9)
    rows = [sampling.shape(row) for row in values.view(6, VOCAB)]
    assert torch.equal(sampling.shape(values).view(6, VOCAB), torch.stack(rows))


def test_half_precision_is_shaped_in_float32():
    values = logits(2).bfloat16()
    found = Sampling(0.7, top_p=0.9).shape(values)
    assert found.dtype == torch.float32
    assert torch.equal(found, Sampling(0.7, top_p=0.9).shape(values.float()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", value) for value in (-0.1, math.nan, math.inf, -math.inf)),
        ("top_k", -1),
        *(("top_p", value) for value in (0.0, -0.5, 1.1, math.nan, math.inf)),
    ],
)
def test_what_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Sampling(**{"temperature": 1.0, field: value})


def test_temperature_zero_is_greedy():
    assert Sampling().greedy and not Sampling(0.01).greedy
