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
    if config.env.name == "replay":
        return _replay(config, bench)
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


def _replay(config: Any, bench: Bench) -> Any:
    from envs.replay import ReplayVectorEnv
    from envs.trace import Trace, check_disjoint

    trace = Trace.read(config.env.traces)
    for split in ("dev", "test"):
        check_disjoint(trace, build.make_prompts(config, split))
    if trace.meta.temperature != config.temperature:
        raise ValueError(
            f"{config.env.traces}: recorded at temperature {trace.meta.temperature}, "
            f"not {config.temperature}"
        )
    loads = list(config.env.loads or [config.batch_size])
    return ReplayVectorEnv(
        trace, config.env.costs, num_envs=config.env.num_envs, loads=loads, seed=config.seed,
        menu=build.make_menu(config, bench), reward=config.reward.name,
    )  # fmt: skip
