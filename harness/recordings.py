"""A recording and a cost table to learn from: given ones, or made once by their own commands."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from envs.calibrate import CONTEXTS
from envs.provenance import pair_key
from envs.shards import digest
from envs.trace import Trace
from harness import build
from harness.overrides import CONF
from harness.training import Stopped
from spec_core.menu import Menu
from spec_core.pair import chosen_recall
from spec_core.prompts import spread

Stop = Callable[[], bool]
Words = list[Any]


def recordings(config: Any, menu: Menu, loads: list[int], stop: Stop) -> tuple[Path, Path]:
    """Where the recording of train prompts and the cost table are; made where none is given."""
    root = Path(config.runs) / "recordings"
    traces = Path(config.traces) if config.traces else _record(config, menu, root, stop)
    if config.cost:
        return traces, Path(config.cost)
    trace = Trace.read(traces, pair=pair_of(config), skip_broken=config.skip_broken)
    contexts = _contexts(int(trace.lengths.max()))
    return traces, _calibrate(config, menu, loads, contexts, root, stop)


def _record(config: Any, menu: Menu, root: Path, stop: Stop) -> Path:
    prompts = spread(build.make_prompts(config, "train"), config.recorded)
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    words = [
        "envs.record", *_models(config), "--menu", *menu.names, "--temperature", config.temperature,
        "--top-k", config.top_k, "--top-p", config.top_p, "--seed", config.seed,
        "--max-new-tokens", config.max_new_tokens, "--max-nodes", config.max_nodes,
    ]  # fmt: skip
    folder = root / _key(config, words, lines)
    root.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".jsonl")
    file.write_text(lines, encoding="utf-8")
    words += ["--workers", _workers(config.device)]
    _run([*words, "--prompts", file, "--out", folder], stop)  # only what is not there yet
    return folder


def _workers(device: str) -> int:
    """Processes that record side by side: what they make does not depend on the clock."""
    return min(os.cpu_count() or 1, 4) if device == "cpu" else 1


def _contexts(longest: int) -> list[int]:
    """The usual text lengths, doubled on until the longest text is covered."""
    found = list(CONTEXTS)
    while found[-1] < longest:
        found.append(2 * found[-1])
    return found


def _calibrate(
    config: Any, menu: Menu, loads: list[int], contexts: list[int], root: Path, stop: Stop
) -> Path:
    words = [
        "envs.calibrate", *_models(config), "--menu", *menu.names, "--batches", *sorted(set(loads)),
        "--contexts", *contexts,
        "--temperature", config.temperature, "--minutes", 0.5 * len(set(loads)),
    ]  # fmt: skip
    words += ["--threads", config.threads] if config.threads else []
    file = root / f"costs-{_key(config, words)}.json"
    if not file.exists():
        _run([*words, "--out", file], stop)
    return file


def _models(config: Any) -> Words:
    named = {name: getattr(config.pair, name) for name in ("target", "draft")}
    named |= {"device": config.device, "dtype": config.dtype}
    words = [word for name, value in named.items() if value for word in (f"--{name}", value)]
    return words + {None: [], True: ["--recall"], False: ["--no-recall"]}[config.pair.recall]


def pair_of(config: Any) -> str:
    """The key of the configured pair, which recordings carry."""
    recall = chosen_recall(config.pair.recall, torch.device(config.device))
    return pair_key(config.pair.target, config.pair.draft, recall)


def _key(config: Any, *parts: Any) -> str:
    return digest(json.dumps([pair_of(config), *parts], default=str))[:12]


def _with_parent() -> None:
    """On Linux a child is asked to stop when its parent is killed, which cannot ask any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _run(words: Words, stop: Stop) -> None:
    """Run a command; a wish to stop is passed on to it, and it keeps what it has finished."""
    path = os.pathsep.join([str(CONF.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, found = [sys.executable, "-m", *map(str, words)], {**os.environ, "PYTHONPATH": path}
    child = subprocess.Popen(command, env=found, preexec_fn=_with_parent)
    try:
        while True:
            try:
                code = child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if stop():
                    raise Stopped from None
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    if code:
        raise ValueError(f"python -m {words[0]} failed (exit code {code}); what it said is above")
