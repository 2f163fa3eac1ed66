"""Configuration to environments, live or replayed."""

from __future__ import annotations

from typing import Any

from harness import build
from harness.evaluation import Bench
from spec_core.menu import read_name


def make_env(config: Any, bench: Bench, about: dict[str, Any]) -> Any:
    """The environment that the policy learns in; a policy may insist on a head."""
    head = about.get("head") or config.env.head
    if config.env.name == "live":
        return _live(config, bench, head)
    raise ValueError(f"no environment {config.env.name!r}; known: live, replay")


def _live(config: Any, bench: Bench, head: str) -> Any:
    from envs.live import SpecDecodeVectorEnv

    work = bench.workload
    return SpecDecodeVectorEnv(
        bench.pair, build.make_prompts(config, "train"), num_envs=work.batch_size,
        menu=build.make_menu(config, bench), head=head, reward=config.reward.name,
        temperature=work.temperature, top_k=work.top_k, top_p=work.top_p,
        max_new_tokens=work.max_new_tokens, seed=work.seed, plan=read_name(config.env.plan),
        budgets=list(config.env.budgets), max_nodes=work.max_nodes,
        projections=config.env.projections, verifier=bench.decoder.verifier,
    )  # fmt: skip
