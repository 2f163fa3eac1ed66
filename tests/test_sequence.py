"""Where a sequence ends does not depend on how many tokens come at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Letters

from spec_core.sequence import Ending, Sequence

LETTERS = Letters()
small = st.integers(0, 4)
texts = st.lists(small, max_size=30)
stops = st.lists(st.lists(small, min_size=1, max_size=4).map(LETTERS.decode), max_size=2)


def expected(tokens: list[int], limit: int, eos: set[int], stops: list[str]):
    """The tokens kept and why they end, by looking at every prefix."""
    for count in range(1, len(tokens) + 1):
        text = LETTERS.decode(tokens[:count])
        if tokens[count - 1] in eos:
            return tokens[:count], Ending.EOS
        if any(stop in text for stop in stops):
            return tokens[:count], Ending.STOP
        if count == limit:
            return tokens[:count], Ending.CONTEXT
    return tokens, None


@settings(max_examples=300)
@given(texts, st.integers(1, 30), st.sets(small, max_size=1), stops, st.data())
def test_chunks_end_where_single_tokens_do(tokens, limit, eos, stops, data):
    prompt = [1, 2]  # may hold a stop string or an end token: only new tokens count
    fields = {"eos": frozenset(eos), "stops": tuple(stops), "decode": LETTERS.decode}
    sequence = Sequence(list(prompt), len(prompt) + limit, full=Ending.CONTEXT, **fields)
    rest, kept = list(tokens), []
    while rest and sequence.ending is None:
        size = data.draw(st.integers(1, len(rest)))
        kept += sequence.extend(rest[:size])
        rest = rest[size:]
    right, ending = expected(tokens, limit, eos, stops)
    assert kept == sequence.new == right and sequence.ending is ending
    assert sequence.tokens == prompt + right
    assert sequence.remaining == limit - len(right)


def test_a_full_prompt_has_ended():
    assert Sequence([1, 2], 2).ending is Ending.LENGTH
    assert Sequence([1, 2], 2, full=Ending.CONTEXT).ending is Ending.CONTEXT
    assert Sequence([1, 2], 3).ending is None


def test_a_long_stop_string_of_many_tokens_is_found():
    stop = "0123456789" * 4
    sequence = Sequence([5], 500, stops=(stop,), decode=LETTERS.decode)
    tokens = [3] * 100 + LETTERS.encode(stop) + [7]
    assert sequence.extend(tokens) == tokens[:-1] and sequence.ending is Ending.STOP


def test_stop_strings_need_a_decoder():
    with pytest.raises(AssertionError, match="decoder"):
        Sequence([1], 5, stops=("a",))
