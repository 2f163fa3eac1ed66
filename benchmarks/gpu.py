"""Speed on a GPU: bandwidth, step costs, and decoding against transformers at the size of an 8B.

Three targets: the embedded one inflated to that shape, so that acceptance is real, and random
weights in the shapes of Llama 3 8B and Qwen3 4B. A part that fails says so in the results and the
rest goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from benchmarks.common import machine, quartiles, save
from benchmarks.curves import step
from benchmarks.gpu_target import (
    SMOKE,
    Place,
    Scale,
    Target,
    inflated_target,
    llama_target,
    qwen3_target,
)
from spec_core import AUTOREGRESSIVE, Fixed, Pair, Plan, SpeculativeDecoder
from spec_core.graphs import Static
from spec_core.models.base import first_line
from spec_core.models.fast import FastModel

TARGETS = {"inflated": inflated_target, "llama": llama_target, "qwen3": qwen3_target}
PARTS = ["bandwidth", *TARGETS]
PLANS = {"chain of 6": Plan(6, budget=7), "beam 6 x 4 of 32": Plan(6, width=4, budget=32)}


def attempt(part: Callable[..., dict], *arguments: Any) -> dict:
    """A part's results, or why there are none."""
    try:
        return part(*arguments)
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> dict:
    """What stands in the results where a part failed."""
    return {"failed": f"{type(error).__name__}: {first_line(error)}"}


def interleaved(
    runs: dict[str, Callable[[], Any]], scale: Scale, place: Place
) -> dict[str, dict[str, float]]:
    """Milliseconds of each run: all of them in random order, again and again."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    shuffled = random.Random(0)
    for _ in range(scale.samples):
        for name in shuffled.sample(list(runs), len(runs)):
            place.wait()
            start = perf_counter()
            for _ in range(scale.inner):
                runs[name]()
            place.wait()
            times[name].append((perf_counter() - start) * 1e3 / scale.inner)
    return {name: quartiles(values) for name, values in times.items()}


def bandwidth(scale: Scale, place: Place) -> dict:
    """Bytes read and written per second by a copy."""
    source = torch.randn(scale.copied // 4, device=place.device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, scale, place)["copy"]
    return {"ms": times, "gb_per_second": 2 * scale.copied / times["median"] / 1e6}


def steps(model: FastModel, fixed: Static, scale: Scale, place: Place, sizes: tuple) -> dict:
    """Milliseconds of one forward by its queries, recorded and direct."""
    kinds = {"recorded": fixed, "direct": model}
    runs = {
        f"{kind} {n}": step(each, scale.context, 1, n)
        for kind, each in kinds.items()
        for n in sizes
    }
    times = interleaved(runs, scale, place)
    return {kind: {str(n): times[f"{kind} {n}"] for n in sizes} for kind in kinds}


def verify_curve(target: Target, scale: Scale, place: Place) -> dict:
    """Steps by tree size, and how much dearer they are than a step of one token."""
    found = steps(target.fast, target.fixed, scale, place, scale.nodes)
    for kind, times in list(found.items()):
        one = times[str(scale.nodes[0])]["median"]
        found[f"{kind} ratio"] = {n: time["median"] / one for n, time in times.items()}
    return found


def draft_costs(target: Target, scale: Scale, place: Place) -> dict:
    """Of one forward of the draft, and of a whole draft of 6 levels, by width."""
    draft, fixed = target.draft, target.fixed_draft
    assert draft is not None and fixed is not None
    chance = random.Random(0)
    text = [chance.randrange(draft.vocab_size) for _ in range(scale.context)]

    def drafting(width: int) -> Callable[[], None]:
        session = SpeculativeDecoder(target.pair(True)).open([text], 40, ignore_eos=True)
        plan = Plan(6, width=width, budget=32)

        def run() -> None:
            if session.drafting is not None:
                session.drafting.commit(0, len(text) - 1, [])  # as if the last token were new
            for _ in session.draft([plan]):
                raise AssertionError("nobody asked")

        return run

    runs = {str(width): drafting(width) for width in scale.widths}
    forwards = steps(draft, fixed, scale, place, scale.widths)
    return {"forward": forwards, "six levels": interleaved(runs, scale, place)}


@dataclass
class Made:
    """One generation."""

    tokens: list[int]
    seconds: float  # prefill included
    stats: Any = None


def ours(pair: Pair, plan: Plan, scale: Scale, place: Place) -> Callable[[list[int]], Made]:
    """Our decoder under one plan."""
    decoder = SpeculativeDecoder(pair, Fixed(plan))

    def run(prompt: list[int]) -> Made:
        place.wait()
        start = perf_counter()
        made = decoder.generate([prompt], max_new_tokens=scale.new_tokens, ignore_eos=True)
        place.wait()
        return Made(made.tokens[0], perf_counter() - start, made.stats)

    return run


def theirs(module: Any, scale: Scale, place: Place, **options: Any) -> Callable[[list[int]], Made]:
    """transformers' generate."""

    def run(prompt: list[int]) -> Made:
        tokens = torch.tensor([prompt], device=place.device)
        place.wait()
        start = perf_counter()
        out = module.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
            max_new_tokens=scale.new_tokens, **options,
        )  # fmt: skip
        place.wait()
        return Made(out[0, len(prompt) :].tolist(), perf_counter() - start)

    return run


def contenders(target: Target, scale: Scale, place: Place) -> dict[str, Callable]:
    """Everybody who generates."""
    found: dict[str, Callable] = {}
    for fixed, suffix in ((True, ""), (False, ", direct")):
        pair = target.pair(fixed)
        plans = PLANS if pair.drafter is not None else {}
        for name, plan in {"plain": AUTOREGRESSIVE, **plans}.items():
            found[name + suffix] = ours(pair, plan, scale, place)
    found["transformers"] = theirs(target.module, scale, place)
    static_cache = {"cache_implementation": "static"}  # which transformers compiles on a GPU
    found["transformers static"] = theirs(target.module, scale, place, **static_cache)
    return found


def generation(target: Target, speed: float | None, scale: Scale, place: Place) -> dict:
    """Tokens per second of each contender on the same prompts, interleaved."""
    runs, made, failed = contenders(target, scale, place), dict[str, list[Made]](), {}
    prompts = target.prompts
    for name, run in list(runs.items()):
        tries = attempt(lambda run=run: {"made": [run(prompts[0]) for _ in range(3)]})
        made[name] = []
        if "failed" in tries:
            failed[name] = tries
            del runs[name]
    shuffled, right = random.Random(0), dict[int, list[int]]()
    for _ in range(scale.repeats):
        for index, prompt in enumerate(prompts):
            for name in shuffled.sample(list(runs), len(runs)):
                made[name].append(runs[name](prompt))
                if name == "plain":
                    right[index] = made[name][-1].tokens
    texts = [right.get(i) for _ in range(scale.repeats) for i in range(len(prompts))]
    found = {name: summary(made[name], texts) for name in runs}
    for name in ("plain", "plain, direct"):
        if speed and name in found:
            read = target.bytes_read * found[name]["decoding_per_second"]["median"] / 1e9
            found[name]["share_of_bandwidth"] = read / speed
    return found | failed


def summary(made: list[Made], texts: list) -> dict:
    """Speeds, the share of texts that are the plain ones, and for ours the phases."""
    same = [m.tokens == text for m, text in zip(made, texts, strict=True)]
    found: dict[str, Any] = {
        "tokens_per_second": quartiles([len(m.tokens) / m.seconds for m in made]),
        "same_text": sum(same) / len(same),
    }
    stats = [m.stats for m in made if m.stats]
    if stats:
        cycles = sum(s.cycles for s in stats)
        found["decoding_per_second"] = quartiles([s.tokens_per_second for s in stats])
        found["tokens_per_cycle"] = sum(s.new_tokens for s in stats) / cycles
        names = ("decide", "draft", "verify", "commit", "total")
        phases = {n: sum(getattr(s.phases, n) for s in stats) for n in names}
        phases["wall"] = sum(s.seconds for s in stats)
        found["ms_per_cycle"] = {n: 1e3 * seconds / cycles for n, seconds in phases.items()}
    return found


def pieces(name: str, scale: Scale, place: Place, speed: float | None) -> Iterator[tuple]:
    """(piece, results) of one target."""
    try:
        target = TARGETS[name](scale, place)
    except Exception as error:
        yield "target", failure(error)
        return
    yield "target", {"bytes_read_per_step": target.bytes_read}
    yield "steps", attempt(verify_curve, target, scale, place)
    if target.draft is not None:
        yield "draft", attempt(draft_costs, target, scale, place)
    yield "generation", attempt(generation, target, speed, scale, place)


def measure(only: list[str], scale: Scale, place: Place) -> Iterator[dict]:
    """All results so far, after every piece."""
    content: dict[str, Any] = {"device": str(place.device), "dtype": str(place.dtype)}
    content["scale"] = {name: str(value) for name, value in vars(scale).items()}
    speed = None
    if "bandwidth" in only:
        content["bandwidth"] = attempt(bandwidth, scale, place)
        speed = content["bandwidth"].get("gb_per_second")
        yield content
    for name in TARGETS:
        if name in only:
            content[name] = {}
            for piece, found in pieces(name, scale, place, speed):
                content[name][piece] = found
                yield content
            place.clean()


def main(arguments: list[str] | None = None) -> None:
    """Measure and write results/gpu.json, anew after every piece; a smoke run only prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny, on the CPU: does it run?")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.smoke else options.device)
    if device.type != "cuda" and not options.smoke:
        parser.error("there is no GPU here; --smoke runs everything in miniature on the CPU")
    place = Place(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    with torch.no_grad():
        for content in measure(options.only, SMOKE if options.smoke else Scale(), place):
            if not options.smoke:
                save("gpu", content)
    if options.smoke:
        print(json.dumps({"machine": machine(), **content}, indent=1))


if __name__ == "__main__":
    main()
