"""Speeds, intervals and the check that outputs are the same, on made-up rows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.statistics import (
    Differs,
    check_lossless,
    probability_of_improvement,
    summarise,
    tokens_per_second,
)

PROMPTS = 12


def row(policy: str, prompt: int, tokens: int, seconds: float, repeat: int = 0, **more) -> dict:
    """A row whose phases fill its time."""
    shares = {"draft": 0.3, "verify": 0.5, "decide": 0.05, "commit": 0.15}
    made = {
        "policy": policy,
        "prompt_id": f"p{prompt}",
        "domain": f"d{prompt % 2}",
        "repeat": repeat,
        "new_tokens": tokens,
        "seconds": seconds,
        "cycles": max(1, tokens // 3),
        "drafted": tokens,
        "accepted": tokens // 2,
        "output_tokens": list(range(tokens)),
        "phases": {phase: share * seconds for phase, share in shares.items()},
    }
    return made | more


def rows_of(times: dict[str, list[float]], tokens: list[int], repeats: int = 1) -> list[dict]:
    """One row per policy, prompt and repeat."""
    return [
        row(policy, prompt, tokens[prompt], seconds, repeat)
        for repeat in range(repeats)
        for policy, own in times.items()
        for prompt, seconds in enumerate(own)
    ]


lengths = st.lists(st.integers(20, 128), min_size=PROMPTS, max_size=PROMPTS)
paces = st.lists(st.floats(0.8, 1.25), min_size=PROMPTS, max_size=PROMPTS)  # times a usual speed


@settings(max_examples=25)
@given(lengths, paces, paces)
def test_intervals_contain_the_value(tokens, mine, theirs):
    times = {
        "a": [n * pace / 100 for n, pace in zip(tokens, mine, strict=True)],
        "ar": [n * pace / 50 for n, pace in zip(tokens, theirs, strict=True)],
    }
    figures = summarise(rows_of(times, tokens), "ar", "ar", draws=400)["policies"]["a"]
    for name in ("tokens_per_second", "ratio_to_baseline"):
        interval = figures[name]
        assert interval["low"] * (1 - 1e-9) <= interval["value"] <= interval["high"] * (1 + 1e-9)


@settings(max_examples=25)
@given(lengths, paces)
def test_identical_policies_have_ratio_one_without_width(tokens, pace):
    seconds = [n * p / 70 for n, p in zip(tokens, pace, strict=True)]
    times = {"ar": seconds, "twin": seconds, "third": seconds}
    made = summarise(rows_of(times, tokens, repeats=2), "ar", "twin", draws=300)
    for figures in made["policies"].values():
        for part in (figures, *figures["domains"].values()):
            for name in ("ratio_to_baseline", "ratio_to_static"):
                assert part[name] == {"value": 1.0, "low": 1.0, "high": 1.0}
            assert part["probability_of_improvement"] == 0.5


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    rows = [row("ar", 0, 10, 10.0), row("ar", 1, 90, 30.0)]
    rows += [row("fast", 0, 10, 1.0), row("fast", 1, 90, 30.0)]
    assert tokens_per_second(rows[:2]) == 100 / 40  # the mean of 1 and 3 would be 2
    figures = summarise(rows, "ar", "ar")["policies"]["fast"]
    assert math.isclose(figures["ratio_to_baseline"]["value"], 40 / 31)  # not (10 + 1) / 2
    assert math.isclose(figures["tokens_per_second"]["value"], 100 / 31)
    assert figures["probability_of_improvement"] == 0.75  # one prompt won, one tied


@settings(max_examples=25)
@given(lengths, paces, st.floats(0.1, 50))
def test_a_constant_factor_on_seconds_scales(tokens, pace, factor):
    seconds = [n * p / 70 for n, p in zip(tokens, pace, strict=True)]
    times = {"ar": [2 * s for s in seconds], "a": seconds}
    slower = {name: [factor * s for s in own] for name, own in times.items()}
    before, after = (
        summarise(rows_of(own, tokens), "ar", "ar", draws=200)["policies"]["a"]
        for own in (times, slower)
    )
    for part in ("value", "low", "high"):
        rate = before["tokens_per_second"][part]
        assert math.isclose(after["tokens_per_second"][part], rate / factor, rel_tol=1e-9)
        ratio = before["ratio_to_baseline"][part]
        assert math.isclose(after["ratio_to_baseline"][part], ratio, rel_tol=1e-9)


def test_pairing_cancels_what_prompts_have_in_common():
    random = np.random.default_rng(0)
    hard = random.uniform(0.2, 5, 40)  # prompts differ 25-fold, policies by a steady 10 %
    times = {"ar": list(hard), "a": list(hard / 1.1 * random.normal(1, 0.002, 40))}
    figures = summarise(rows_of(times, [64] * 40), "ar", "ar")["policies"]["a"]
    ratio, rate = figures["ratio_to_baseline"], figures["tokens_per_second"]
    assert ratio["high"] - ratio["low"] < 0.01
    assert rate["high"] - rate["low"] > 0.2 * rate["value"]


@pytest.mark.parametrize("size", [1, 4, 40])
def test_prompts_that_were_decoded_together_are_no_prompts_apart(size):
    slow = np.repeat(np.random.default_rng(0).uniform(1, 5, 10), 4)  # pauses that four share
    rows = rows_of({"ar": [1.0] * 40, "a": list(slow)}, [64] * 40)
    blocks = [{**row, "block": int(row["prompt_id"][1:]) // size} for row in rows]
    alone, found = (
        summarise(some, "ar", "ar")["policies"]["a"]["tokens_per_second"] for some in (rows, blocks)
    )
    wide, width = found["high"] - found["low"], alone["high"] - alone["low"]
    assert found["value"] == alone["value"]
    assert {1: wide == width, 4: wide > 1.5 * width, 40: wide == 0}[size]


def test_repeats_of_a_prompt_are_no_new_prompts():
    random = np.random.default_rng(1)
    times = {"ar": list(random.uniform(1, 3, 10)), "a": list(random.uniform(1, 3, 10))}
    once, often = (
        summarise(rows_of(times, [50] * 10, repeats), "ar", "ar")["policies"]["a"]
        for repeats in (1, 5)
    )
    for name in ("tokens_per_second", "ratio_to_baseline"):
        assert once[name] == pytest.approx(often[name])


@given(st.integers(0, 1), st.integers(0, 9), st.integers(0, 2), st.floats(2, 100))
def test_a_pause_in_one_of_three_repeats_changes_nothing(policy, prompt, repeat, factor):
    times = {"ar": [2.0 + 0.1 * i for i in range(10)], "a": [1.0 + 0.2 * i for i in range(10)]}
    calm = rows_of(times, [50] * 10, 3)
    place = repeat * 20 + policy * 10 + prompt
    paused = [
        row | {"seconds": factor * row["seconds"]} if i == place else row
        for i, row in enumerate(calm)
    ]
    assert summarise(paused, "ar", "ar") == summarise(calm, "ar", "ar")
    assert tokens_per_second(paused) < tokens_per_second(calm)


def test_two_repeats_count_as_their_mean():
    rows = rows_of({"ar": [1.0, 2.0]}, [50, 50]) + rows_of({"ar": [3.0, 2.0]}, [50, 50])
    for later in rows[2:]:
        later["repeat"] = 1
    made = summarise(rows, "ar", "ar")
    assert made["repeats"] == 2
    assert made["policies"]["ar"]["seconds"] == pytest.approx(4.0)


def test_intervals_are_as_wide_as_the_theory_says():
    random = np.random.default_rng(2)
    base = random.uniform(1, 2, 200)
    mine = base * random.lognormal(0, 0.2, 200)
    made = summarise(rows_of({"ar": list(base), "a": list(mine)}, [50] * 200), "ar", "ar")
    ratio = made["policies"]["a"]["ratio_to_baseline"]
    residuals = base - ratio["value"] * mine  # the linearised ratio of two sums
    error = math.sqrt((residuals**2).sum()) / mine.sum()
    assert ratio["high"] - ratio["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (ratio["high"] + ratio["low"]) / 2 == pytest.approx(ratio["value"], rel=0.01)


def test_what_a_cycle_and_a_token_cost():
    rows = [row("ar", 0, 30, 3.0, cycles=30, drafted=0, accepted=0)]
    rows += [row("a", 0, 30, 2.0, cycles=10, drafted=80, accepted=20)]
    rows[1]["phases"] = {"draft": 0.4, "verify": 1.0, "decide": 0.2, "commit": 0.0}
    made = summarise(rows, "ar", "missing")
    figures = made["policies"]["a"]
    assert figures["tokens_per_cycle"] == 3 and figures["drafted_per_cycle"] == 8
    assert figures["acceptance"] == 0.25 and figures["accepted_per_cycle"] == 2
    assert math.isclose(figures["policy_share"], 0.2 / 1.6)
    assert math.isclose(figures["ms_per_token"]["rest"], 400 / 30)
    assert math.isclose(sum(figures["ms_per_token"].values()), 2000 / 30)
    assert made["policies"]["ar"]["acceptance"] is None, "nothing was drafted"
    assert figures["ratio_to_static"] is None, "no such policy"
    json.dumps(made, allow_nan=False)


def test_domains_are_summed_on_their_own():
    times = {"ar": [4.0, 4.0, 4.0, 4.0], "a": [1.0, 4.0, 1.0, 4.0]}
    made = summarise(rows_of(times, [40] * 4), "ar", "ar")
    figures = made["policies"]["a"]["domains"]
    assert made["domains"] == {"d0": 2, "d1": 2}
    assert figures["d0"]["ratio_to_static"] == {"value": 4.0, "low": 4.0, "high": 4.0}
    assert figures["d1"]["ratio_to_static"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_seed_decides_the_draws():
    rows = rows_of({"ar": [1.0, 2.0, 3.0, 1.5], "a": [1.0, 1.0, 4.0, 2.0]}, [20, 30, 40, 50])
    first, again, other = (
        summarise(rows, "ar", "ar", seed, draws=50)["policies"] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_probability_of_improvement_counts_prompts():
    rows = rows_of({"a": [1.0, 1.0, 1.0, 9.0], "b": [2.0, 2.0, 1.0, 1.0]}, [10] * 4)
    assert probability_of_improvement(rows, "a", "b") == 2.5 / 4
    assert probability_of_improvement(rows, "b", "a") == 1.5 / 4


@settings(max_examples=25)
@given(st.integers(0, PROMPTS - 1), st.data())
def test_a_changed_token_is_found(prompt, data):
    rows = rows_of({name: [1.0] * PROMPTS for name in ("ar", "a", "b")}, [20] * PROMPTS, 2)
    check_lossless(rows)
    position = data.draw(st.integers(0, 19))
    changed = next(r for r in rows[::-1] if r["policy"] == "b" and r["prompt_id"] == f"p{prompt}")
    changed["output_tokens"][position] += 1
    with pytest.raises(Differs, match=rf"b and ar .* p{prompt}, repeat 1, .* {position} on"):
        check_lossless(rows)


def test_a_shorter_output_differs_where_it_ends():
    rows = [row("ar", 0, 20, 1.0), row("a", 0, 20, 1.0, output_tokens=list(range(7)))]
    with pytest.raises(Differs, match="token 7"):
        check_lossless(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 0.0}, "took no time"),
        ({"seconds": math.nan}, "bad times"),
        ({"new_tokens": 0}, "made no tokens"),
        ({"prompt_id": "other"}, "did not run the same prompts"),
        ({"domain": "elsewhere"}, "two domains"),
    ],
)
def test_rows_that_cannot_be_summed_are_refused(change, message):
    rows = rows_of({"ar": [1.0, 2.0], "a": [1.0, 1.0]}, [20, 30])
    rows[-1] |= change
    with pytest.raises(AssertionError, match=message):
        summarise(rows, "ar", "ar")


def test_a_run_twice_is_refused():
    rows = rows_of({"ar": [1.0]}, [20])
    with pytest.raises(AssertionError, match="twice"):
        summarise(rows + rows, "ar", "ar")
