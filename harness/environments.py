"""Configuration to environments, live or replayed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import build
from harness.evaluation import Bench
from harness.looks import EVERY, Look, OnRecordings
from harness.recordings import Stop, recordings
from spec_core.menu import read_name

if TYPE_CHECKING:
    from envs.trace import Trace


def make_env(
    config: Any, bench: Bench, about: dict[str, Any], stop: Stop = lambda: False,
    name: str | None = None,
) -> tuple[Any, Look | None]:  # fmt: skip
    """The environment that the policy learns in, and a look at what is held out, if anything is.

    stop: whether somebody wants the making of recordings to end. name: another one than configured.
    A policy may insist on a head, or on an environment.
    """
    head, name = about.get("head") or config.env.head, name or env_name(config, about)
    if name == "live":
        return _live(config, bench, head, stop), None
    if name == "replay":
        return _replay(config, bench, head, stop)
    raise ValueError(f"no environment {name!r}; known: live, replay")


def env_name(config: Any, about: dict[str, Any]) -> str:
    """The environment that the policy insists on, or the configured one."""
    return str(about.get("env") or config.env.name)


def check(config: Any, bench: Bench, about: dict[str, Any]) -> None:
    """Refuse before anything takes time what a learner's environment would refuse later."""
    from envs.cost import Costs, price
    from envs.heads import base_plan
    from policies.learners import checked

    head, menu = about.get("head") or config.env.head, build.make_menu(config, bench)
    checked(about["name"], about.get("arguments") or {}, head)
    plan = read_name(config.env.plan)
    if head != "menu":
        base_plan(head, plan)
    replays = env_name(config, about) == "replay"
    if not (replays and config.traces):
        build.make_prompts(config, "train")
    if not (replays or config.pretrain):
        return
    _recordable(config, bench, head)
    if not config.traces:
        return
    trace = _trace(config, bench, Path(config.traces))
    if config.cost and head == "menu":
        for load in config.loads or [config.batch_size]:
            price(trace.with_menu(menu), Costs.read(Path(config.cost)), load)


def _recordable(config: Any, bench: Bench, head: str) -> None:
    """Refuse what no recording can serve."""
    from envs.replay_heads import served

    if config.env.projections:
        raise ValueError(
            "hidden states are not recorded: take env.projections=0, or env=live pretrain=0"
        )
    if head != "menu":
        served(head, read_name(config.env.plan))
    bench.recorded_as  # noqa: B018  (refuses a verifier)


def _live(config: Any, bench: Bench, head: str, stop: Stop) -> Any:
    from envs.live import SpecDecodeVectorEnv

    work = bench.workload
    return SpecDecodeVectorEnv(
        bench.pair, build.make_prompts(config, "train"), **_batch(config, work.batch_size),
        menu=build.make_menu(config, bench), head=head, reward=config.reward.name,
        temperature=work.temperature, top_k=work.top_k, top_p=work.top_p,
        max_new_tokens=work.max_new_tokens, seed=work.seed, plan=read_name(config.env.plan),
        budgets=list(config.env.budgets), max_nodes=work.max_nodes,
        projections=config.env.projections, verifier=bench.decoder.verifier,
        doubt=list(config.env.doubt), decision_seconds=_deciding(config, bench, head, stop),
    )  # fmt: skip


def _deciding(config: Any, bench: Bench, head: str, stop: Stop) -> float:
    """What an answer of the exported policy costs here: by the cost table, or measured now."""
    from envs.calibrate import brief
    from envs.cost import Costs

    loads = list(config.loads or [config.batch_size])
    if config.cost or config.pretrain:
        costs = config.cost or recordings(config, build.make_menu(config, bench), loads, stop)[1]
        table = Costs.read(Path(costs))
    elif bench.pair.drafter is None:
        return 0.0
    else:
        loads = [config.batch_size]
        table = brief(bench.pair, loads[0], bench.workload.temperature)
    price = (table.deciding if head == "menu" else table.asking)(loads[0])
    return max(price, 1e-9)  # 0 would mean that there is no price


def _batch(config: Any, size: int) -> dict[str, Any]:
    """An environment for each text of the batch, or one for all of it."""
    if config.env.together:
        return {"num_envs": 1, "loads": [size], "together": True}
    return {"num_envs": size}


def _replay(config: Any, bench: Bench, head: str, stop: Stop) -> tuple[Any, Look | None]:
    from envs.cost import Costs
    from envs.replay import ReplayVectorEnv

    menu, loads = build.make_menu(config, bench), list(config.loads or [config.batch_size])
    traces, costs = recordings(config, menu, loads, stop)
    trace, prices = _trace(config, bench, traces), Costs.read(costs)
    trace = trace.with_menu(menu) if head == "menu" else trace
    parts = trace.fold(EVERY) if loads == [1] and not config.env.together else None
    look = OnRecordings(*parts, prices) if parts else None
    batch = 1 if config.env.together or len(loads) > 1 else loads[0]
    num_envs = -(-config.num_envs // batch) * batch  # whole batches
    env = ReplayVectorEnv(
        parts[0] if parts else trace, prices, num_envs=num_envs, loads=loads, seed=config.seed,
        menu=menu, head=head, plan=read_name(config.env.plan),
        budgets=list(config.env.budgets), reward=config.reward.name,
        doubt=list(config.env.doubt), together=config.env.together,
    )  # fmt: skip
    return env, look


def _trace(config: Any, bench: Bench, traces: Path) -> Trace:
    """A recording of this pair and workload, of none of the prompts that policies are judged by."""
    from envs.provenance import pair_key
    from envs.trace import Trace, check_disjoint

    pair = pair_key(config.pair.target, config.pair.draft, bench.pair.recalls)
    trace = Trace.read(traces, pair=pair, skip_broken=config.skip_broken)
    for split in ("dev", "test"):
        check_disjoint(trace, build.make_prompts(config, split))
    trace.meta.check(traces, **bench.recorded_as)
    return trace
