"""A tiny pair under a workload, and prompts for it."""

from __future__ import annotations

from small import Letters, pair_of

from harness.evaluation import Bench, Workload

PROMPTS = [
    {"id": f"{domain}-{i}", "domain": domain, "prompt": text}
    for domain, texts in {"a": ("123", "456", "789"), "b": ("5", "777")}.items()
    for i, text in enumerate(texts)
]


def bench(kind: str = "near", **work) -> Bench:
    """A tiny pair under a workload."""
    pair = pair_of(kind, tokenizer=Letters())
    return Bench(pair, Workload(**{"max_new_tokens": 16, "seed": 3, **work}))
