"""python -m envs.record --out DIR: record prompts for replay. May be stopped and run again.

Finished shards are whole files, a rerun records the prompts that are in none of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from envs.provenance import commit, pair_key
from envs.shards import (
    META,
    Meta,
    agreeing,
    broken,
    digest,
    read_meta,
    read_shards,
    replace_file,
    write_shard,
)
from spec_core.cli import Parser
from spec_core.menu import DEFAULT_MENU, Menu
from spec_core.prompts import Prompt, read_prompts, spread


def prepare(folder: Path, meta: Meta, prompts: list[Prompt]) -> list[Prompt]:
    """Begin a recording or go on with one; the prompts that are still to be recorded."""
    if (folder / META).exists():
        other = meta.difference(read_meta(folder))
        if other:
            raise ValueError(f"{folder} holds another recording ({other}); give another --out")
    aside(folder)
    shards = agreeing(meta, read_shards(folder), strict=True)
    done = {text.id: text for shard in shards for text in shard.texts}
    for prompt in prompts:
        known = done.get(prompt["id"])
        if known is not None and known.digest != digest(prompt["prompt"]):
            raise ValueError(f"{folder}: prompt {prompt['id']!r} was recorded with another text")
    replace_file(folder / META, (json.dumps(meta.content, indent=1) + "\n").encode())
    return [prompt for prompt in prompts if prompt["id"] not in done]


def aside(folder: Path) -> None:
    """Name the shards that cannot be read, and move them out of the way."""
    for path in broken(folder):
        with suppress(FileNotFoundError):  # another recorder was quicker
            path.replace(path.with_suffix(".broken"))
        print(f"{path} cannot be read: its prompts are recorded again", file=sys.stderr)


Job = tuple[dict[str, Any], Meta, Path, list[Prompt]]
_loaded: dict[str, Any] = {}  # a worker's pair, loaded once


def work(job: Job) -> int:
    """Record one shard; the number of its positions."""
    from envs.recorder import Recorder
    from spec_core.pair import load_pair

    models, meta, folder, prompts = job
    if "pair" not in _loaded:
        _loaded["pair"] = load_pair(**models)
    texts, parts = zip(*Recorder(_loaded["pair"], meta).record(prompts), strict=True)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    write_shard(folder, meta, list(texts), arrays)
    return int(arrays["count"].sum())


def _worker(threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A killed parent cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run(jobs: list[Job], workers: int) -> Iterator[int]:
    """The jobs' positions, as they finish."""
    if workers == 1:
        yield from map(work, jobs)
        return
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _worker, (threads,))
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def show(counts: Iterable[int], jobs: list[Job]) -> int:
    """A progress bar over prompts; the positions in all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    positions, sizes = 0, sum(len(job[3]) for job in jobs)
    columns = ("recording", BarColumn(), MofNCompleteColumn(), "shards", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("record", total=len(jobs))
        for count in counts:
            positions += count
            bar.advance(task)
    print(f"recorded {sizes} prompts, {positions} positions")
    return positions


def parser() -> Parser:
    """The options."""
    made = Parser("python -m envs.record", description="Record prompts for replay.")
    add = made.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where; an old recording goes on")
    add("--split", default="train", choices=["train", "dev", "test"], help="embedded prompts")
    add("--prompts", type=Path, metavar="FILE", help="JSON lines with id, domain and prompt")
    add("--menu", nargs="+", metavar="PLAN", help="names of plans; default: the default menu")
    add("--limit", type=int, metavar="N", help="only so many prompts, domains taking turns")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    add("--top-k", type=int, default=0, metavar="K")
    add("--top-p", type=float, default=1.0, metavar="P")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="default 128")
    add("--max-nodes", type=int, default=64, metavar="N", help="default 64")
    add("--seed", type=int, default=0, metavar="S")
    add("--workers", type=int, default=1, metavar="W", help="processes; default 1")
    add("--shard-size", type=int, default=16, metavar="N", help="prompts per file; default 16")
    add("--target", metavar="DIR", help="folder or hub id; default: the embedded pair")
    add("--draft", metavar="DIR", help="folder or hub id of its draft")
    add("--device", default="cpu")
    add("--dtype", help="default float32 on cpu, else bfloat16")
    both = argparse.BooleanOptionalAction
    add("--recall", action=both, help="whether drafts look up the text's own past; default: on cpu")
    return made


def check(options: argparse.Namespace) -> Menu:
    """Refuse what can be refused before a model is loaded; the menu."""
    from spec_core.sampling import Sampling

    for name in ("max_new_tokens", "workers", "shard_size", "limit"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if bool(options.target) != bool(options.draft):
        raise ValueError("--target and --draft go together")
    Sampling(options.temperature, options.top_k, options.top_p)
    return Menu.of(options.menu) if options.menu else DEFAULT_MENU


def describe(options: argparse.Namespace, menu: Menu, prompts: list[Prompt]) -> Meta:
    """What is recorded; loads the pair and refuses plans and prompts that do not fit it."""
    from envs.recorder import Recorder
    from spec_core.pair import load_pair

    pair = _loaded["pair"] = load_pair(**_models(options))
    same = ("temperature", "top_k", "top_p", "seed", "max_new_tokens", "max_nodes")
    meta = Meta(
        menu, pair_key(options.target, options.draft, pair.recalls), commit=commit(),
        reach=pair.drafter.max_context if pair.drafter else 0,
        dtype=str(pair.target.dtype).removeprefix("torch."),
        **{name: getattr(options, name) for name in same},
    )  # fmt: skip
    decoder = Recorder(pair, meta).decoder
    for prompt in prompts:
        try:
            decoder.sequence(prompt["prompt"], meta.max_new_tokens, meta.seed)
        except ValueError as error:
            raise ValueError(f"prompt {prompt['id']!r}: {error}") from None
    return meta


def _models(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: getattr(options, name) for name in ("target", "draft", "device", "dtype", "recall")
    }


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input, 130 interrupted."""
    try:
        return _run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the rest", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from spec_core import embedded

    if options.prompts:
        prompts = read_prompts(options.prompts)
    else:
        prompts = embedded.prompts(options.split)
    chosen = spread(prompts)[: options.limit]
    meta, models = describe(options, check(options), chosen), _models(options)
    todo = prepare(options.out, meta, chosen)
    size = options.shard_size
    jobs = [(models, meta, options.out, todo[i : i + size]) for i in range(0, len(todo), size)]
    if jobs:
        show(run(jobs, min(options.workers, len(jobs))), jobs)
    else:
        print(f"{options.out}: everything is recorded already")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends workers as Ctrl-C does
    with suppress(BrokenPipeError):
        sys.exit(main())
