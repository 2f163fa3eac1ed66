"""Speeds and ratios with paired bootstrap intervals; knows rows only, no models and no files.

Prompts of a block, which are decoded together and share their seconds, are drawn together.
Of a prompt's repeats the median counts: a pause of the machine is nobody's doing. Every figure is
a ratio of sums: tokens over seconds of all prompts, never a mean of ratios. Intervals come from
prompts drawn anew; they say nothing about another machine, other domains or another training seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1  # of the summary
PHASES = ("draft", "verify", "decide", "commit")

Row = dict[str, Any]
Array = NDArray[np.float64]


class Differs(ValueError):
    """Two policies' outputs are not the same tokens."""


def tokens_per_second(rows: Iterable[Row]) -> float:
    """All new tokens over all seconds."""
    rows = list(rows)
    return _total(rows, "new_tokens") / _total(rows, "seconds")


def summarise(
    rows: list[Row], baseline: str, static: str, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:  # fmt: skip
    """Figures per policy and, within it, per domain; JSON-able. Ratios to absent policies: None."""
    _check(rows)
    repeats, rows = len({row["repeat"] for row in rows}), typical(rows)
    policies = _figures(rows, baseline, static, seed, draws)
    domains = _grouped(rows, "domain")
    for domain, own in domains.items():
        for policy, figures in _figures(own, baseline, static, seed, draws).items():
            policies[policy].setdefault("domains", {})[domain] = figures
    return {
        "format": FORMAT,
        "baseline": baseline,
        "static": static,
        "prompts": _num_prompts(rows),
        "repeats": repeats,
        "domains": {domain: _num_prompts(own) for domain, own in domains.items()},
        "draws": draws,
        "seed": seed,
        "policies": policies,
    }


def typical(rows: list[Row]) -> list[Row]:
    """One row per policy and prompt: of its repeats the median by seconds."""
    made = []
    for own in _grouped(rows, "policy").values():
        for repeats in _grouped(own, "prompt_id").values():
            order, last = sorted(repeats, key=lambda row: row["seconds"]), len(repeats) - 1
            made.append(_middle(order[last // 2], order[(last + 1) // 2]))
    return made


def _middle(one: Row, other: Row) -> Row:
    """The mean of two repeats, or the one if both are the same; what is no number stays."""
    phases = {name: (one["phases"][name] + other["phases"][name]) / 2 for name in one["phases"]}
    counts = ("seconds", "new_tokens", "cycles", "drafted", "accepted")
    return {**one, **{name: (one[name] + other[name]) / 2 for name in counts}, "phases": phases}


def probability_of_improvement(rows: list[Row], policy: str, other: str) -> float:
    """Share of the prompts on which `policy` is faster than `other`; ties count half."""
    speeds = []
    for name in (policy, other):
        prompts = _grouped([row for row in rows if row["policy"] == name], "prompt_id")
        speeds.append({prompt: tokens_per_second(own) for prompt, own in prompts.items()})
    mine, theirs = speeds
    assert mine and mine.keys() == theirs.keys(), f"{policy} and {other} ran different prompts"
    wins = [float(np.sign(mine[prompt] - theirs[prompt])) for prompt in mine]
    return (1 + sum(wins) / len(wins)) / 2


def check_lossless(rows: list[Row]) -> None:
    """Raise Differs where two policies' tokens for the same prompt and repeat are not the same."""
    first: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        other = first.setdefault((row["prompt_id"], row["repeat"]), row)
        mine, theirs = row["output_tokens"], other["output_tokens"]
        if mine != theirs:
            raise Differs(
                f"{row['policy']} and {other['policy']} differ on prompt {row['prompt_id']}, "
                f"repeat {row['repeat']}, from token {_first_difference(mine, theirs)} on"
            )


def _figures(
    rows: list[Row], baseline: str, static: str, seed: int, draws: int
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Per policy: speed, ratios and means over these rows."""
    found = {prompt: own[0] for prompt, own in _grouped(rows, "prompt_id").items()}
    prompts = {prompt: i for i, prompt in enumerate(found)}
    blocks = [row.get("block", prompt) for prompt, row in found.items()]
    places = {block: i for i, block in enumerate(dict.fromkeys(blocks))}
    counts = _counts(len(places), seed, draws)[:, [places[block] for block in blocks]]
    groups = _grouped(rows, "policy")
    speeds = {policy: _speeds(own, prompts, counts) for policy, own in groups.items()}
    made = {}
    for policy, own in groups.items():
        figures = _means(own)
        figures["tokens_per_second"] = _interval(speeds[policy])
        for name, other in (("ratio_to_baseline", baseline), ("ratio_to_static", static)):
            ratios = speeds[policy] / speeds[other] if other in speeds else None
            figures[name] = _interval(ratios) if ratios is not None else None
        won = probability_of_improvement(rows, policy, static) if static in speeds else None
        figures["probability_of_improvement"] = won
        made[policy] = figures
    return made


def _counts(num_blocks: int, seed: int, draws: int) -> Array:
    """How often each draw holds each block, [1 + draws, P]; the first row is the data itself."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=draws)
    return np.vstack([np.ones(num_blocks), drawn])


def _speeds(rows: list[Row], prompts: dict[Any, int], counts: Array) -> Array:
    """Tokens per second of each draw, [1 + draws]."""
    places = [prompts[row["prompt_id"]] for row in rows]
    tokens, seconds = (
        np.bincount(places, [row[field] for row in rows], len(prompts))
        for field in ("new_tokens", "seconds")
    )
    return (counts @ tokens) / (counts @ seconds)


def _interval(values: Array) -> dict[str, float]:
    """The data's own value and where 95 % of the draws lie."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _means(rows: list[Row]) -> dict[str, Any]:
    """What needs no interval; None where nothing was counted."""
    tokens, cycles = _total(rows, "new_tokens"), _total(rows, "cycles")
    drafted, accepted = _total(rows, "drafted"), _total(rows, "accepted")
    spent = {phase: math.fsum(row["phases"][phase] for row in rows) for phase in PHASES}
    rest = max(0.0, _total(rows, "seconds") - sum(spent.values()))  # prefill, if it was timed
    shares = {phase: _over(seconds, sum(spent.values())) for phase, seconds in spent.items()}
    return {
        "new_tokens": int(tokens),
        "seconds": _total(rows, "seconds"),
        "cycles": int(cycles),
        "tokens_per_cycle": _over(tokens, cycles),
        "drafted_per_cycle": _over(drafted, cycles),
        "accepted_per_cycle": _over(accepted, cycles),
        "acceptance": _over(accepted, drafted),
        "phase_shares": shares,
        "policy_share": shares["decide"],
        "ms_per_token": {k: 1e3 * v / tokens for k, v in (spent | {"rest": rest}).items()},
    }


def _check(rows: list[Row]) -> None:
    """Assert what the sums rely on: times above 0, one domain per prompt, paired policies."""
    assert rows, "there are no rows"
    for row in rows:
        where = f"{row['policy']} on prompt {row['prompt_id']}"
        spent = [row["seconds"], *(row["phases"][phase] for phase in PHASES)]
        assert all(math.isfinite(value) and value >= 0 for value in spent), f"{where}: bad times"
        assert row["seconds"] > 0, f"{where} took no time"
        assert row["new_tokens"] > 0, f"{where} made no tokens"
    for prompt, own in _grouped(rows, "prompt_id").items():
        assert len({row["domain"] for row in own}) == 1, f"prompt {prompt} is in two domains"
    ran = {
        policy: sorted((str(row["prompt_id"]), row["repeat"]) for row in own)
        for policy, own in _grouped(rows, "policy").items()
    }
    first = next(iter(ran))
    for policy, own_runs in ran.items():
        assert own_runs == ran[first], f"{policy} and {first} did not run the same prompts"
        assert len(set(own_runs)) == len(own_runs), f"{policy} ran a prompt's repeat twice"


def _grouped(rows: list[Row], field: str) -> dict[Any, list[Row]]:
    """Rows by one field's value, in the order of first appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[field], []).append(row)
    return groups


def _num_prompts(rows: list[Row]) -> int:
    return len({row["prompt_id"] for row in rows})


def _total(rows: list[Row], field: str) -> float:
    return math.fsum(row[field] for row in rows)


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _first_difference(mine: list[int], theirs: list[int]) -> int:
    """The first position at which two token lists are not the same; the shorter one's end too."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(mine), len(theirs)))
