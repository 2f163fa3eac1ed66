"""The best static plan on the dev prompts: a grid that brackets the optimum, halved as it goes."""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict

import torch

from benchmarks.common import pick, save
from spec_core import Fixed, Plan, SpeculativeDecoder, load_pair


def grid() -> list[Plan]:
    """Plain decoding, chains, chains that stop at a doubt, beams of several sizes, best-first."""
    plans = [Plan(0, budget=1)]
    plans += [Plan(d, budget=d + 1) for d in (2, 3, 4, 6, 8, 10, 12, 16)]
    plans += [Plan(d, budget=d + 1, threshold=t) for d in (6, 8, 12, 16) for t in (0.1, 0.3, 0.5)]
    beams = ((4, 2, 8), (6, 2, 12), (8, 2, 12), (8, 2, 16), (6, 4, 16), (8, 4, 24), (12, 2, 16))
    plans += [Plan(d, width=w, budget=b) for d, w, b in beams]
    plans += [
        Plan(d, width=2, budget=b, threshold=t)
        for d, b in ((8, 12), (12, 16))
        for t in (0.05, 0.15)
    ]
    plans += [Plan(d, width=1, children=2, budget=b) for d, b in ((6, 10), (8, 12), (12, 16))]
    return plans


def measure(
    decoder: SpeculativeDecoder,
    plans: list[Plan],
    prompts: list[dict],
    new: int,
    temperature: float,
):
    """Tokens per second of every plan: prompts in turn, plans in random order at each."""
    tokens, seconds = [0] * len(plans), [0.0] * len(plans)
    shuffled = random.Random(0)
    for prompt in prompts:
        texts = set()
        for i in shuffled.sample(range(len(plans)), len(plans)):
            decoder.policy = Fixed(plans[i])
            made = decoder.generate(
                [prompt["prompt"]], ids=[prompt["id"]], max_new_tokens=new, temperature=temperature
            )
            texts.add(tuple(made.tokens[0]))
            tokens[i] += made.stats.new_tokens
            seconds[i] += made.stats.seconds
        assert len(texts) == 1, f"{prompt['id']}: plans disagree on the text"
    return [n / s for n, s in zip(tokens, seconds, strict=True)]


def main() -> None:
    """Tune and write results/tune.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, nargs="+", default=[2, 6], help="prompts per domain")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    decoder = SpeculativeDecoder(load_pair())
    found = {}
    for temperature in options.temperatures:
        plans = grid()
        for per_domain in options.rounds:
            prompts = pick("dev", per_domain)
            measure(decoder, plans[:3], prompts[:2], options.new_tokens, temperature)  # warm up
            speeds = measure(decoder, plans, prompts, options.new_tokens, temperature)
            ranked = sorted(zip(speeds, plans, strict=True), key=lambda pair: -pair[0])
            plans = [plan for _, plan in ranked[: max(6, len(ranked) // 4)]]
            print(f"T={temperature}, {per_domain} per domain: {ranked[0]}")
        rows = [{"plan": asdict(plan), "tokens_per_second": speed} for speed, plan in ranked]
        found[str(temperature)] = {"best": rows[0]["plan"], "last_round": rows}
    save("tune", {"split": "dev", "new_tokens": options.new_tokens, "temperatures": found})


if __name__ == "__main__":
    main()
