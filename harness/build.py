"""Configuration to objects: the one place that reads it; everything built takes plain arguments."""

from __future__ import annotations

import difflib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.evaluation import Bench, Prompt, Workload
from harness.overrides import CONF
from harness.tuning import STATIC_GRID, tune, tune_static
from spec_core import embedded
from spec_core.menu import Menu, read_name
from spec_core.pair import Pair, load_pair
from spec_core.plan import Plan
from spec_core.policy import Fixed, Policy, load_policy
from spec_core.prompts import read_prompts, spread
from spec_core.session import Outcome
from spec_core.verifiers.base import Verifier
from spec_core.verifiers.coupled import Coupled
from spec_core.verifiers.rejection import Rejection

Say = Callable[[str], None]
Tick = Callable[[], None]


def make_pair(config: Any) -> Pair:
    """The pair of the configuration, with torch's threads set."""
    if config.threads:
        torch.set_num_threads(config.threads)
    pair = config.pair
    return load_pair(
        pair.target, pair.draft, config.device, config.dtype, pair.backend, recall=pair.recall
    )


def make_verifier(config: Any) -> Verifier:
    """The verifier of the configuration."""
    kind = config.verifier
    return Rejection() if kind.name == "rejection" else Coupled(kind.coupled)


def make_bench(config: Any, pair: Pair) -> Bench:
    """The pair under the configured workload."""
    if config.batch_size < 1 or config.max_new_tokens < 1:
        raise ValueError("batch_size and max_new_tokens must be at least 1")
    workload = Workload(
        config.temperature, config.top_k, config.top_p, config.max_new_tokens,
        config.batch_size, config.seed, config.max_nodes,
    )  # fmt: skip
    return Bench(pair, workload, make_verifier(config))


def shorter(config: Any, bench: Bench) -> Bench:
    """The same bench with texts as long as tuning needs."""
    new = min(config.tune_tokens, bench.workload.max_new_tokens)
    return Bench(bench.pair, replace(bench.workload, max_new_tokens=new), bench.decoder.verifier)


def make_prompts(config: Any, split: str) -> list[Prompt]:
    """The prompts of a split; those of a file are split by a hash of their id."""
    if config.data.kind == "embedded":
        return embedded.prompts(split)
    file = Path(config.data.path)
    found = [prompt for prompt in read_prompts(file) if _split_of(prompt["id"]) == split]
    if not found:
        raise ValueError(f"{file}: no prompt falls into the {split} split; give more prompts")
    return found


def _split_of(name: str) -> str:
    part = zlib.crc32(name.encode()) % 10
    return "test" if part < 3 else "dev" if part < 5 else "train"


def make_menu(config: Any, bench: Bench) -> Menu:
    """The menu, every plan of which fits."""
    menu = Menu.of(list(config.menu.plans))
    menu.check(bench.workload.max_nodes, bench.pair.target.vocab_size)
    return menu


def make_static(
    config: Any, bench: Bench, dev: list[Prompt], say: Say, tick: Tick = lambda: None
) -> tuple[Fixed, dict]:
    """The best static plan: the named one, or tuned on dev; and what tuning saw."""
    if config.static != "auto":
        return Fixed(read_name(config.static)), {}
    return tune_static(bench, dev, STATIC_GRID, tuple(config.tune_rounds), say, tick)


def check_unseen(item: str, prompts: list[Prompt]) -> None:
    """Refuse prompts that the policy of a run folder, if it is one, has learned from."""
    from omegaconf import DictConfig, OmegaConf

    from envs.trace import Trace, check_disjoint

    folder = Path(item)
    file = (folder.parent if folder.name == "policy" else folder) / "config.yaml"
    run: Any = OmegaConf.load(file) if file.is_file() else {}
    about = run.get("policy")
    if not isinstance(about, DictConfig) or about.get("kind") != "learner":
        return
    traces = run.get("traces")
    if traces and Path(traces).exists():
        check_disjoint(Trace.read(Path(traces), skip_broken=True), prompts)
    if traces and (about.get("env") or run.env.name) == "replay":
        return  # it saw nothing else
    try:
        learned = {prompt["prompt"] for prompt in make_prompts(run, "train")}
    except (OSError, ValueError):  # its prompts are there no more
        return
    for prompt in prompts:
        if prompt["prompt"] in learned:
            raise ValueError(
                f"{item} has learned from the prompt {prompt['id']!r}: compare it on others"
            )


def policy_config(name: str) -> dict[str, Any]:
    """What conf/policy says of a name; a bare name where it says nothing."""
    from omegaconf import OmegaConf

    file = CONF / "policy" / f"{name}.yaml"
    if not file.exists():
        return {"name": name, "kind": "rule", "arguments": {}}
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return content


def make_policy(
    item: str, static: Fixed, tuned: Tuner | None = None, given: dict[str, Any] | None = None
) -> Policy:
    """A policy by what a user may write: best_static, a plan, a rule, a run or policy folder.

    given: a rule's arguments; without them those of its configuration, the best of its grid.
    """
    from policies.rules import RULES, make_rule

    if item == "best_static":
        return static
    folder = Path(item)
    for path in (folder / "policy", folder):
        if (path / "policy.json").is_file():
            return load_policy(path)
    if item in RULES:
        about = policy_config(item)
        arguments = dict(given or about.get("arguments") or {})
        if tuned is not None and about.get("grid"):
            arguments |= tuned(item, [{**arguments, **more} for more in about["grid"]])
        return make_rule(item, **arguments)
    try:
        return Fixed(read_name(item))
    except ValueError:
        near = difflib.get_close_matches(item, ["best_static", *RULES], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(["best_static", *RULES])
        raise ValueError(
            f"no policy {item!r}{hint}: neither a rule ({known}), nor a plan such as chain-4, "
            "nor a folder with an exported policy"
        ) from None


def measured(bench: Bench, dev: list[Prompt], ranks: int = 4) -> tuple[list[float], dict]:
    """What Sequoia wants: P(child of rank r is accepted | its parent was), and seconds by size."""
    from policies.rules.costs import SIZES, LearnedCosts
    from policies.rules.sequoia import RankCounter

    counter, costs = RankCounter(ranks), LearnedCosts()
    batches = bench.batches(spread(dev, 1))
    most = bench.workload.max_nodes
    wide = Plan(3, width=ranks, children=ranks, budget=most)
    for batch in batches:
        bench.run(Fixed(wide), batch, watch=counter)

    def learn(outcome: Outcome) -> None:  # sizes are those of one sequence, as Sequoia asks
        nodes, spent = outcome.tree.nodes, outcome.seconds
        levels = max(plan.depth for plan in outcome.plans) if nodes > 1 else 0
        costs.learn(1, levels, nodes, spent.draft, spent.total - spent.draft)

    for nodes in [size for size in SIZES if size <= most]:
        bench.run(Fixed(replace(wide, budget=nodes)), batches[0], watch=learn)
    return [round(rate, 4) for rate in counter.rates], costs.content


class Tuner:
    """Picks rules' best arguments of a grid on dev, and keeps what it picked."""

    def __init__(
        self, bench: Bench, dev: list[Prompt], rounds: tuple[int, ...], say: Say,
        tick: Tick = lambda: None,
    ) -> None:  # fmt: skip
        self.bench, self.dev, self.rounds, self.say, self.tick = bench, dev, rounds, say, tick
        self.found: dict[str, dict] = {}

    def __call__(self, name: str, grid: list[dict]) -> dict:
        """The best arguments of a rule."""
        from policies.rules import make_rule

        if name == "sequoia":
            rates, costs = measured(self.bench, self.dev)
            most = {"budget": self.bench.workload.max_nodes, "depth": 16, "costs": costs}
            grid = [{**arguments, "acceptance": rates} for arguments in [*grid, most]]
        by_name = {json.dumps(arguments): arguments for arguments in grid}
        candidates = {key: partial(make_rule, name, **what) for key, what in by_name.items()}
        best, speeds = tune(self.bench, candidates, self.dev, self.rounds, tick=self.tick)
        self.say(f"{name}: {best}")
        self.found[name] = {"arguments": by_name[best], "speeds": speeds}
        return by_name[best]
