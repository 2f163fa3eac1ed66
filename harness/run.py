"""One run from its configuration to its folder: train and evaluate; errors are one line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from envs.cost import Costs
from envs.provenance import pair_key
from harness import build, environments
from harness.comparing import BASELINE, STATIC, compare
from harness.evaluation import Bench, Prompt
from harness.folder import RunFolder
from harness.gap import Recording
from harness.loggers import Logger, make_logger
from harness.looks import on_dev
from harness.resuming import resumed, wants_more
from harness.training import (
    LOOKS,
    Budget,
    Pretraining,
    Stopped,
    Trainer,
    leaning,
    stoppable,
    ticking,
)
from spec_core.models.load import cold
from spec_core.pair import Pair
from spec_core.plan import AUTOREGRESSIVE
from spec_core.policy import Fixed, Policy
from spec_core.prompts import spread

ENDED = ("evaluating", "done")  # stages in which nothing is learned any more


def say(text: str) -> None:
    """A line for people, beside any progress bar."""
    tqdm.write(text, file=sys.stderr)


def plain(config: Any) -> dict[str, Any]:
    """The configuration as dictionaries."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(config, resolve=True)
    return content


def open_folder(config: Any, name: str, output: str | None) -> RunFolder:
    """The folder asked for, the sweep's own, or a new one; with the configuration in it."""
    from omegaconf import OmegaConf

    given = config.folder or output
    folder = RunFolder(Path(given)) if given else RunFolder.fresh(Path(config.runs), name)
    folder.write("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    return folder


def train(
    config: Any, output: str | None = None, given: Sequence[str] = ()
) -> dict[str, Any]:  # fmt: skip
    """Tune the static plan, learn, export and compare; returns the summary."""
    if config.resume:
        config = resumed(config, given)
        stage = _stage(RunFolder(Path(config.resume)))
        more = wants_more(given)
    else:
        stage, more = "", True
    learns = more or stage not in ENDED
    about = plain(config)
    for name in config.baselines:  # what is wrong is said before anything takes time
        build.make_policy(name, Fixed(AUTOREGRESSIVE))
    folder = open_folder(config, f"{config.policy.name}-s{config.seed}", output)
    say(f"run folder: {folder.path}")
    if cold(config.device):
        say("compiling the decoder's machine code, once on this machine")
    with stoppable() as stop:
        pair = build.make_pair(config)
        bench = build.make_bench(config, pair)
        dev, test = build.make_prompts(config, "dev"), build.make_prompts(config, "test")
        if about["policy"]["kind"] == "learner" and learns:
            environments.check(config, bench, about["policy"])
            if config.cost:
                _prices(config, pair)
        if more and stage in ENDED:  # it had come to its end
            folder.status("training")
        logger = _logger(about, folder, output)
        tick = ticking(stop)
        try:
            static = _static(config, bench, dev, folder, tick)
            policy = _learn(config, bench, dev, static, folder, logger, stop)
            if not config.compare:
                logger.finish({}, [], folder.path)
                folder.status("done")
                return {}
            folder.status("evaluating")
            policies = {BASELINE: build.make_policy(BASELINE, static), STATIC: static}
            for name in config.baselines:
                policies.setdefault(name, build.make_policy(name, static))
            policies[config.policy.name] = policy
            chosen = spread(test, config.test_prompts) if config.test_prompts else test
            learned = [config.policy.name] if hasattr(policy, "chooser") else []
            return compare(config, bench, policies, chosen, folder, logger, learned, tick=tick)
        except Stopped:
            folder.status("stopped", during=_stage(folder))
            say(f"stopped; go on with resume={folder.path}")
            return {}
        except BaseException as error:
            with suppress(OSError):  # the disk may be full
                folder.status("failed", during=_stage(folder), error=str(error))
            raise
        finally:
            logger.close()


def _stage(folder: RunFolder) -> str:
    """How far the run came, also if it was stopped there."""
    told = folder.read("status.json", {})
    return str(told.get("during") or told.get("state") or "")


def _logger(about: dict[str, Any], folder: RunFolder, output: str | None) -> Logger:
    """As configured; the runs of a sweep belong together."""
    options = {key: value for key, value in about["logger"].items() if key != "name"}
    if output and "group" in options:
        options["group"] = options["group"] or Path(output).parent.name
    return make_logger(about["logger"]["name"], about, folder.path, **options)


def _static(
    config: Any, bench: Bench, dev: list[Prompt], folder: RunFolder,
    tick: Callable[[], None] = lambda: None,
) -> Fixed:  # fmt: skip
    """The best static plan, tuned once per run."""
    from spec_core.menu import plan_name, read_plan

    known = folder.read("static.json")
    if known:
        return Fixed(read_plan(known["plan"]))
    folder.status("tuning")
    static, speeds = build.make_static(config, build.shorter(config, bench), dev, say, tick)
    name = plan_name(static.plan_)
    folder.write("static.json", {"plan": name, "speeds": speeds})
    say(f"static plan: {name}" + (" (tuned on dev)" if speeds else " (as given)"))
    return static


def _learn(
    config: Any, bench: Bench, dev: list[Prompt], static: Fixed, folder: RunFolder,
    logger: Logger, stop: Callable[[], bool],
) -> Policy:  # fmt: skip
    """What the configured policy became: learned, or a rule as it is."""
    from spec_core.policy import load_policy

    about = plain(config.policy)
    if about["kind"] != "learner":
        given = about.get("arguments") or {}
        work, rounds = build.shorter(config, bench), tuple(config.tune_rounds)
        tuned = None if given else build.Tuner(work, dev, rounds, say, ticking(stop))
        policy = build.make_policy(about["name"], static, tuned, given)
        if hasattr(policy, "save"):
            policy.save(folder.path / "policy")
        return policy
    if _stage(folder) not in ENDED:
        _train_learner(config, about, bench, dev, static, folder, logger, stop)
    exported = folder.whole("policy")
    assert exported is not None, "training ends with a probe, which exports"
    return load_policy(exported)


def _train_learner(
    config: Any, about: dict, bench: Bench, dev: list[Prompt], static: Fixed, folder: RunFolder,
    logger: Logger, stop: Callable[[], bool],
) -> None:  # fmt: skip
    from policies.learners import make_learner

    env, look = environments.make_env(config, bench, about, stop)
    every = min(config.probe_every, 60 * config.minutes / LOOKS) if look else config.probe_every
    budget = Budget(config.steps, config.minutes, every)
    learner = make_learner(about["name"], env, config.seed, **(about.get("arguments") or {}))
    live = environments.env_name(config, about) == "live"
    if live and config.pretrain and folder.whole("state") is None:
        _pretrain(config, about, bench, learner, folder, stop)
    folder.status("training")
    with tqdm(total=1, unit="s", bar_format=BAR, file=sys.stderr) as bar:
        bar.set_postfix_str(_tuned(folder))
        probes = spread(dev, config.dev_prompts)
        look = look or on_dev(build.shorter(config, bench), static, probes, leaning(folder))
        Trainer(learner, env, look, budget, folder, logger, bar).run(stop)


def _tuned(folder: RunFolder) -> str:
    """What tuning saw of the static plan, for the bar until there is a look."""
    known = folder.read("static.json", {})
    speed = known.get("speeds", {}).get(known.get("plan"))
    return f"best static {speed:.1f} tok/s" if speed else ""


def _pretrain(
    config: Any, about: dict, bench: Bench, learner: Any, folder: RunFolder,
    stop: Callable[[], bool],
) -> None:  # fmt: skip
    """Let the same kind of learner learn from recordings, and the learner go on where it ends."""
    from policies.learners import make_learner

    folder.status("pretraining")
    recorded, look = environments.make_env(config, bench, about, stop, "replay")
    early = make_learner(about["name"], recorded, config.seed, **(about.get("arguments") or {}))
    with tqdm(total=round(60 * config.pretrain), unit="s", bar_format=BAR, file=sys.stderr) as bar:
        Pretraining(60 * config.pretrain, early, recorded, look, folder, bar).run(stop)
    learner.restore(folder.whole("pretrained"))


def evaluate_policies(config: Any, output: str | None = None) -> dict[str, Any]:
    """Compare policies by name, plan or folder; rules at their best on dev."""
    about = plain(config)
    for item in config.policies:  # what is wrong is said before anything takes time
        build.make_policy(item, Fixed(AUTOREGRESSIVE))
    pair = build.make_pair(config)
    bench = build.make_bench(config, pair)
    dev, prompts = build.make_prompts(config, "dev"), build.make_prompts(config, config.split)
    if config.prompts:
        prompts = spread(prompts, config.prompts)
    if config.split != "train":
        for item in config.policies:
            build.check_unseen(item, prompts)
    oracle = _recording(config, pair) if config.traces else None
    if oracle:
        oracle.read()
        _prices(config, pair)
    folder = open_folder(config, "evaluate", output)
    say(f"run folder: {folder.path}")
    static = _static(config, bench, dev, folder)
    tuned = build.Tuner(build.shorter(config, bench), dev, tuple(config.tune_rounds), say)
    policies: dict[str, Policy] = {}
    for item in dict.fromkeys([BASELINE, STATIC, *config.policies]):
        policies[_short(item, policies)] = build.make_policy(
            item, static, tuned if config.tune else None
        )
    folder.write("tuned.json", tuned.found)
    logger_options = {key: value for key, value in about["logger"].items() if key != "name"}
    logger = make_logger(about["logger"]["name"], about, folder.path, job="eval", **logger_options)
    learned = [name for name, policy in policies.items() if hasattr(policy, "chooser")]
    try:
        return compare(config, bench, policies, prompts, folder, logger, learned, oracle)
    finally:
        logger.close()


def _recording(config: Any, pair: Pair) -> Recording:
    """The configured one, which has to be of this pair."""
    if not config.cost:
        raise ValueError("traces= needs prices: give cost=<a table of python -m envs.calibrate>")
    key = pair_key(config.pair.target, config.pair.draft, pair.recalls)
    return Recording(config.traces, config.cost, key, config.skip_broken)


def _prices(config: Any, pair: Pair) -> None:
    """Read the cost table that was given, and say where it was measured otherwise."""
    key = pair_key(config.pair.target, config.pair.draft, pair.recalls)
    for said in Costs.read(Path(config.cost)).unlike(config.temperature, key):
        say(f"note: {config.cost} was {said}")


def _short(item: str, taken: Any) -> str:
    """A policy's name in the table: a folder's last part, numbered where it is there already."""
    path = Path(item)
    name = path.parent.name if path.name == "policy" else path.name
    return name if name not in taken else f"{name}-{sum(t.startswith(name) for t in taken) + 1}"


BAR = "{desc} |{bar:20}| {n:.0f}/{total:.0f} s {postfix}"
