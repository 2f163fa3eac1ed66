"""The recordings and the cost table that a benchmark is given, or makes for itself and keeps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.calibrate import main as calibrate
from envs.cost import Costs
from envs.provenance import pair_key
from envs.record import main as record
from envs.trace import Trace, check_disjoint
from spec_core import embedded

STEP = 32  # tokens: text lengths are measured at multiples of it


def add_options(parser: argparse.ArgumentParser, train: int, test: int, minutes: float) -> None:
    """Where recordings and costs are; how much to make where none are given."""
    add = parser.add_argument
    add("--train", type=Path, metavar="DIR", help="made by envs.record; default: record some")
    add("--test", type=Path, metavar="DIR", help="the same for the test split")
    add("--costs", type=Path, metavar="FILE", help="made by envs.calibrate; default: calibrate")
    add("--folder", type=Path, default=Path("runs/benchmarks"), help="where what is made is kept")
    add("--train-prompts", type=int, default=train, metavar="N", help="to record")
    add("--test-prompts", type=int, default=test, metavar="N", help="to record")
    add("--calibrate-minutes", type=float, default=minutes, metavar="M")
    add("--threads", type=int, default=1)


def folder(options: argparse.Namespace) -> Path:
    """What is made for another pair is not used again."""
    made: Path = options.folder / pair_key()
    return made


def place(options: argparse.Namespace, split: str) -> Path:
    """The folder of a split's recording."""
    given: Path | None = getattr(options, split)
    return given or folder(options) / f"{split}-{getattr(options, f'{split}_prompts')}"


def trace(options: argparse.Namespace, split: str) -> Trace:
    """The recording of a split."""
    where = place(options, split)
    if getattr(options, split) is None:
        limit = str(getattr(options, f"{split}_prompts"))
        _done(record(["--out", str(where), "--split", split, "--limit", limit]))
    return Trace.read(where, pair=pair_key())


def traces(options: argparse.Namespace) -> tuple[Trace, Trace]:
    """Train and test, without a prompt in common."""
    train, test = trace(options, "train"), trace(options, "test")
    check_disjoint(train, [p for p in embedded.prompts("test")])
    return train, test


def contexts(made: list[Trace]) -> list[int]:
    """Text lengths to measure at: thirds of what was recorded, and the longest."""
    lengths = np.concatenate([trace.lengths for trace in made])
    found = np.quantile(lengths, (1 / 3, 2 / 3, 1)) / STEP
    return sorted({STEP * int(np.ceil(at)) for at in found})


def costs(options: argparse.Namespace, made: list[Trace], batches: tuple[int, ...]) -> Costs:
    """The cost table, measured here unless it is given, or kept and large enough."""
    if options.costs is not None:
        return Costs.read(options.costs)
    where, sizes = folder(options) / "costs.json", contexts(made)
    if where.exists():
        kept = Costs.read(where)
        if set(batches) <= set(kept.batches) and kept.contexts[-1] >= sizes[-1]:
            return kept
    asked = [
        "--batches",
        *sorted(set(batches)),
        "--contexts",
        *sizes,
        "--menu",
        *made[0].menu.names,
    ]
    asked += ["--minutes", options.calibrate_minutes, "--threads", options.threads]
    _done(calibrate(["--out", str(where), *map(str, asked)]))
    return Costs.read(where)


def _done(code: int) -> None:
    """Leave as the step before did, unless it went well."""
    if code:
        raise SystemExit(code)


def origin(train: Trace, test: Trace, table: Costs) -> dict:
    """What the figures rest on."""
    sizes = {"train": train, "test": test}
    return {
        **{f"{name}_texts": len(trace.texts) for name, trace in sizes.items()},
        **{f"{name}_positions": len(trace) for name, trace in sizes.items()},
        "temperature": train.meta.temperature, "menu": train.menu.names,
        "costs": {**table.machine, "contexts": table.contexts, "spread": table.spread},
    }  # fmt: skip


def told(main: Callable[[], None]) -> None:
    """Run; what is wrong is one line."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the results are as they were")
    except (ValueError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
