"""The speed table: plain and speculative decoding against transformers', interleaved per prompt."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from time import perf_counter

import torch
from rich.progress import track

from benchmarks.common import RESULTS, pick, ratio, save
from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, embedded, load_pair
from spec_core.policy import read_plan

COMPARED = (  # the first one's speed over the second one's
    ("autoregressive", "transformers generate"),
    ("best plan", "autoregressive"),
    ("best plan", "transformers assisted"),
    ("best plan", "transformers prompt lookup"),
)
Contender = Callable[[dict], tuple[list[int], float]]  # prompt -> (tokens, seconds)


def ours(decoder: SpeculativeDecoder, plan: Plan, new: int) -> Contender:
    """Our decoder under one plan; prefill counts, as it does in generate()."""

    def run(prompt: dict) -> tuple[list[int], float]:
        decoder.policy = Fixed(plan)
        start = perf_counter()
        made = decoder.generate([prompt["prompt"]], ids=[prompt["id"]], max_new_tokens=new)
        return made.tokens[0], perf_counter() - start

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

    def run(prompt: dict) -> tuple[list[int], float]:
        inputs = tokenizer(prompt["prompt"], return_tensors="pt", return_token_type_ids=False)
        start = perf_counter()
        out = target.generate(**inputs, max_new_tokens=new, do_sample=False, **options)
        return out[0, inputs["input_ids"].shape[1] :].tolist(), perf_counter() - start

    return run


def best_plan(temperature: str = "0.0") -> Plan:
    """The plan that was tuned on the dev prompts."""
    return read_plan(
        json.loads((RESULTS / "tune.json").read_text())["temperatures"][temperature]["best"]
    )


def main() -> None:
    """Measure and write results/speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-domain", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    decoder, new = SpeculativeDecoder(load_pair()), options.new_tokens
    contenders = {
        "autoregressive": ours(decoder, AUTOREGRESSIVE, new),
        "best plan": ours(decoder, best_plan(), new),
        "transformers generate": theirs(new),
        "transformers assisted": theirs(new, assisted=True),
        "transformers prompt lookup": theirs(new, prompt_lookup_num_tokens=10),
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
            }
            texts = {}
            for name in shuffled.sample(list(contenders), len(contenders)):
                tokens, seconds = contenders[name](prompt)
                row["seconds"][name], texts[name] = seconds, tokens
            row["new_tokens"] = len(texts["autoregressive"])
            assert texts["best plan"] == texts["autoregressive"], f"{prompt['id']}: texts differ"
            differ += any(t != texts["autoregressive"] for t in texts.values())
            rows.append(row)
    save(
        "speed",
        {"plan": vars(best_plan()), "rows": rows, "transformers_differ": differ} | summary(rows),
    )


def summary(rows: list[dict]) -> dict:
    """Ratios of total seconds with intervals over prompts, overall and by domain."""
    names = list(rows[0]["seconds"])
    per_prompt: dict[str, dict] = {}
    for row in rows:  # the repeats of a prompt are one observation
        entry = per_prompt.setdefault(row["prompt_id"], {"domain": row["domain"], "tokens": 0})
        entry["tokens"] += row["new_tokens"]
        for name in names:
            entry[name] = entry.get(name, 0.0) + row["seconds"][name]
    entries = list(per_prompt.values())

    def compare(slow: str, fast: str, of: list[dict]) -> list[float]:
        return ratio([e[slow] for e in of], [e[fast] for e in of])

    tokens = [e["tokens"] for e in entries]
    by_domain: dict[str, list[dict]] = {}
    for entry in entries:
        by_domain.setdefault(entry["domain"], []).append(entry)
    return {
        "tokens_per_second": {n: ratio(tokens, [e[n] for e in entries]) for n in names},
        "ratios": {f"{a} / {b}": compare(b, a, entries) for a, b in COMPARED},
        "best plan / autoregressive by domain": {
            d: compare("autoregressive", "best plan", of) for d, of in by_domain.items()
        },
    }


if __name__ == "__main__":
    main()
