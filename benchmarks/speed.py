"""The speed table: plain and speculative decoding against transformers', interleaved per prompt."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch
from rich.progress import track

from benchmarks.common import pick, ratio, save
from harness.evaluation import Bench, Workload
from harness.tuning import tune_static
from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, embedded, load_pair

COMPARED = (  # the first one's speed over the second one's
    ("autoregressive", "transformers generate"),
    ("best plan", "autoregressive"),
    ("best plan", "best plan without recall"),
    ("best plan", "transformers assisted"),
    ("best plan", "transformers prompt lookup"),
)
ALONE = "decoding alone"  # without the prefill
DECODING = (("autoregressive", ALONE), ("best plan", ALONE))
CONSTANT = {"num_assistant_tokens_schedule": "constant"}
Contender = Callable[[dict], tuple[list[int], float, float]]  # -> tokens, seconds, decoding alone


def ours(decoder: SpeculativeDecoder, plan: Plan, new: int) -> Contender:
    """Our decoder under one plan; prefill counts, as it does in generate()."""

    def run(prompt: dict) -> tuple[list[int], float, float]:
        decoder.policy = Fixed(plan)
        start = perf_counter()
        made = decoder.generate([prompt["prompt"]], ids=[prompt["id"]], max_new_tokens=new)
        return made.tokens[0], perf_counter() - start, made.stats.seconds

    return run


def theirs(new: int, **options) -> Contender:
    """transformers' generate on the same checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded.target_path())
    target = AutoModelForCausalLM.from_pretrained(embedded.target_path(), dtype=torch.float32)
    if options.pop("assisted", False):
        options["assistant_model"] = AutoModelForCausalLM.from_pretrained(
            embedded.draft_path(), dtype=torch.float32
        )

    def run(prompt: dict) -> tuple[list[int], float, float]:
        inputs = tokenizer(prompt["prompt"], return_tensors="pt", return_token_type_ids=False)
        start = perf_counter()
        out = target.generate(**inputs, max_new_tokens=new, do_sample=False, **options)
        return out[0, inputs["input_ids"].shape[1] :].tolist(), perf_counter() - start, 0.0

    return run


def tuned(options: list[dict], new: int, prompts: list[dict]) -> tuple[Contender, dict]:
    """The fastest of transformers' settings on dev prompts, and what was seen."""
    made = {str(option): theirs(new, **option) for option in options}
    seconds = dict.fromkeys(made, 0.0)
    for run in made.values():
        run(prompts[0])
    for prompt in prompts:
        for name, run in made.items():
            seconds[name] += run(prompt)[1]
    best = min(seconds, key=lambda name: seconds[name])
    return made[best], {"best": best, "seconds": seconds}


def main() -> None:
    """Measure and write results/speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-domain", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--tune", type=int, default=1, help="dev prompts per domain")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    new, dev, work = options.new_tokens, pick("dev", options.tune), pick("dev", 3 * options.tune)
    decoder, model = (SpeculativeDecoder(load_pair(recall=recall)) for recall in (True, False))
    (static, speeds), (alone, others) = (
        tune_static(Bench(some.pair, Workload(max_new_tokens=new)), work, rounds=(1, 3))
        for some in (decoder, model)
    )
    assisted, seen = tuned(
        [{"assisted": True}]
        + [{"assisted": True, **CONSTANT, "num_assistant_tokens": k} for k in (2, 4, 8)],
        new, dev,
    )  # fmt: skip
    lookup, looked = tuned([{"prompt_lookup_num_tokens": k} for k in (2, 4, 10)], new, dev)
    contenders = {
        "autoregressive": ours(decoder, AUTOREGRESSIVE, new),
        "best plan": ours(decoder, static.plan_, new),
        "best plan without recall": ours(model, alone.plan_, new),
        "transformers generate": theirs(new),
        "transformers assisted": assisted,
        "transformers prompt lookup": lookup,
    }
    prompts = pick("test", options.per_domain)
    for run in contenders.values():
        run(prompts[0])
    rows, shuffled, differ = [], random.Random(0), 0
    for repeat in range(options.repeats):
        for prompt in track(prompts, f"repeat {repeat + 1}"):
            row = {
                "prompt_id": prompt["id"],
                "domain": prompt["domain"],
                "repeat": repeat,
                "seconds": {},
                "decoding": {},
            }
            texts = {}
            for name in shuffled.sample(list(contenders), len(contenders)):
                texts[name], row["seconds"][name], decoding = contenders[name](prompt)
                if decoding:
                    row["decoding"][name] = decoding
            row["new_tokens"] = len(texts["autoregressive"])
            own = [text for name, text in texts.items() if "transformers" not in name]
            assert all(text == own[0] for text in own), f"{prompt['id']}: texts differ"
            differ += any(t != texts["autoregressive"] for t in texts.values())
            rows.append(row)
    settings = {
        "plan": asdict(static.plan_), "plan without recall": asdict(alone.plan_),
        "tuned": {"static": speeds, "without recall": others, "assisted": seen,
                  "prompt lookup": looked},
    }  # fmt: skip
    save("speed", {**settings, "rows": rows, "transformers_differ": differ} | summary(rows))


def summary(rows: list[dict]) -> dict:
    """Ratios of total seconds with intervals over prompts, overall and by domain."""
    names = list(rows[0]["seconds"])
    per_prompt: dict[str, dict] = {}
    for row in rows:  # the repeats of a prompt are one observation
        entry = per_prompt.setdefault(row["prompt_id"], {"domain": row["domain"], "tokens": 0})
        entry["tokens"] += row["new_tokens"]
        for name in names:
            entry[name] = entry.get(name, 0.0) + row["seconds"][name]
        for name, seconds in row["decoding"].items():
            entry[name, ALONE] = entry.get((name, ALONE), 0.0) + seconds
    entries = list(per_prompt.values())

    def compare(slow: Any, fast: Any, of: list[dict]) -> list[float]:
        return ratio([e[slow] for e in of], [e[fast] for e in of])

    tokens = [e["tokens"] for e in entries]
    by_domain: dict[str, list[dict]] = {}
    for entry in entries:
        by_domain.setdefault(entry["domain"], []).append(entry)
    return {
        "tokens_per_second": {n: ratio(tokens, [e[n] for e in entries]) for n in names},
        "ratios": {f"{a} / {b}": compare(b, a, entries) for a, b in COMPARED}
        | {f"best plan / autoregressive, {ALONE}": compare(*DECODING, entries)},
        "best plan / autoregressive by domain": {
            d: compare("autoregressive", "best plan", of) for d, of in by_domain.items()
        },
    }


if __name__ == "__main__":
    main()
