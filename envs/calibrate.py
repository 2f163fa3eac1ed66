"""python -m envs.calibrate --out FILE: measure what cycles cost on this device.

Every cell is the median of repeats; in each repeat all cells take their turn in random order.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.cost import Costs
from envs.provenance import commit, device_name, pair_key
from envs.shapes import drafts, widths
from envs.stand import MOST, SPARE, Stand
from spec_core.chooser import Network
from spec_core.cli import Parser
from spec_core.features import FEATURES
from spec_core.learned import MenuPolicy
from spec_core.menu import DEFAULT_MENU, Menu
from spec_core.pair import Pair, load_pair
from spec_core.plan import Plan
from spec_core.policy import Fixed

Key = tuple[Any, ...]  # what is measured, and the cell
Measure = Callable[[], float]  # seconds
COARSE = (20, 24, 32, 48, 64, 96, 128)


def learned() -> MenuPolicy:
    """A learned policy of the usual size, which drafts two tokens whatever it sees."""
    menu = Menu.of(["ar", "chain-2"])
    inputs, hidden, outputs = len(FEATURES), 64, len(menu)
    sizes = [(hidden, inputs), (hidden, hidden), (outputs, hidden)]
    weights = [np.zeros(size, np.float32) for size in sizes]
    biases = [np.zeros(rows, np.float32) for rows, _ in sizes]
    biases[-1][1] = 1
    return MenuPolicy(menu, Network(weights, biases))


def measurements(
    stand: Stand, widths: list[int], levels: list[int], nodes: list[int]
) -> dict[Key, Measure]:
    """What to measure at one batch size and text length, by the cell."""
    where, policy = (stand.batch, stand.context), learned()
    made: dict[Key, Measure] = {
        ("draft", *where, width, level): partial(stand.draft, _beam(level, width))
        for width in widths
        for level in levels
    }
    made |= {("verify", *where, n): partial(stand.verify, stand.tree(n)) for n in nodes}
    made["fixed", *where] = partial(stand.rest, Fixed(Plan(2)))
    made["learned", *where] = partial(stand.rest, policy)
    return {key: partial(stand.undone, measure) for key, measure in made.items()}


def _beam(levels: int, width: int) -> Plan:
    pool = 1 + width + (levels - 1) * width * width
    return Plan(levels, width, budget=min(pool, 2 * levels * width + 1))


def repeat(
    cells: dict[Key, Measure], repeats: int, rounds: Callable[[range], Iterable[int]]
) -> dict[Key, list[float]]:
    """Every cell `repeats` times and once before, interleaved."""
    found: dict[Key, list[float]] = {key: [] for key in cells}
    order, chance = list(cells), random.Random(0)
    for number in rounds(range(repeats + 1)):
        chance.shuffle(order)
        for key in order:
            seconds = cells[key]()
            if number:  # the first round warms up
                found[key].append(seconds)
    return found


@torch.no_grad()
def measure(
    pair: Pair, sizes: dict[str, list[int]], repeats: int = 20, temperature: float = 0.0,
    rounds: Callable[[range], Iterable[int]] = iter, machine: dict[str, Any] | None = None,
) -> Costs:  # fmt: skip
    """The cost table of a pair on the device it is on; sizes: the axes of `Costs`."""
    cells: dict[Key, Measure] = {}
    for batch in sizes["batches"]:
        for context in sizes["contexts"]:
            stand = Stand(pair, batch, context, temperature)
            cells |= measurements(stand, sizes["widths"], sizes["levels"], sizes["nodes"])
    found = repeat(cells, repeats, rounds)
    middle = {key: float(np.median(values)) for key, values in found.items()}
    spread = [1.4826 * np.median(np.abs(np.array(v) / middle[k] - 1)) for k, v in found.items()
              if k[0] == "verify"]  # fmt: skip

    def table(kind: str, *axes: str) -> np.ndarray:
        made = np.empty([len(sizes[axis]) for axis in axes])
        for place in np.ndindex(made.shape):
            cell = (sizes[axis][i] for axis, i in zip(axes, place, strict=True))
            made[place] = middle[kind, *cell]
        return made

    both = ("batches", "contexts")
    fixed, chosen = (table(kind, *both).mean(1) for kind in ("fixed", "learned"))
    return Costs(
        machine or {}, pair.target.device.type == "cpu", **sizes,
        draft=table("draft", *both, "widths", "levels"), verify=table("verify", *both, "nodes"),
        overhead=fixed, decide=np.maximum(chosen - fixed, 0), spread=float(np.median(spread)),
    )  # fmt: skip


def sizes_for(menu: Menu, reach: int, batches: list[int]) -> dict[str, list[int]]:
    """The sizes that a menu needs, at a few text lengths."""
    plans = [plan for plan in menu.plans if drafts(plan)]
    most = max((plan.budget for plan in plans), default=1)
    return {
        "batches": batches,
        "contexts": [c for c in (128, 256, 384, 512) if c + SPARE <= reach] or [reach - SPARE],
        "widths": sorted({max(widths(plan)) for plan in plans} | {1}),
        "levels": list(range(1, max((plan.depth for plan in plans), default=1) + 1)),
        "nodes": [*range(1, min(most, 17) + 1), *(n for n in COARSE if n < 2 * most and most > 17)],
    }


def parser() -> Parser:
    """The options."""
    made = Parser("python -m envs.calibrate", description="Measure what cycles cost here.")
    add = made.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the JSON to write")
    add("--menu", nargs="+", metavar="PLAN", help="names of plans; default: the default menu")
    for axis, about in (
        ("batches", "sequences at once; default 1"), ("contexts", "tokens of the text"),
        ("widths", "nodes of the widest round"), ("levels", "rounds"), ("nodes", "of a tree"),
    ):  # fmt: skip
        add(f"--{axis}", nargs="+", type=int, metavar="N", help=about)
    add("--repeats", type=int, default=20, metavar="N", help="default 20")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    add("--threads", type=int, metavar="N", help="of torch on the CPU; as the runs will have")
    add("--target", metavar="DIR", help="folder or hub id; default: the embedded pair")
    add("--draft", metavar="DIR", help="folder or hub id of its draft")
    add("--device", default="cpu")
    add("--dtype", help="default float32 on cpu, else bfloat16")
    return made


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input, 130 interrupted."""
    try:
        return _run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _sizes(options: argparse.Namespace, menu: Menu, reach: int) -> dict[str, list[int]]:
    sizes = sizes_for(menu, reach, [1])
    for axis in sizes:
        asked = getattr(options, axis)
        if asked:
            sizes[axis] = sorted(set(asked))
            if sizes[axis][0] < 1:
                raise ValueError(f"--{axis} must be at least 1, not {sizes[axis][0]}")
    for axis, most in (("levels", SPARE - 1), ("nodes", MOST)):
        if sizes[axis][-1] > most:
            raise ValueError(f"--{axis}: {most} is the most that can be measured")
    if sizes["contexts"][-1] + SPARE > reach:
        raise ValueError(f"--contexts: {reach - SPARE} is the most that this pair can be measured")
    return sizes


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    if options.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, not {options.repeats}")
    menu = Menu.of(options.menu) if options.menu else DEFAULT_MENU
    if options.threads:
        torch.set_num_threads(options.threads)
    pair = load_pair(options.target, options.draft, options.device, options.dtype)
    if pair.drafter is None:
        raise ValueError("the pair has no draft model: give --draft")
    reach = min(pair.target.max_context, pair.drafter.max_context)
    sizes = _sizes(options, menu, reach)
    machine = {
        "device": device_name(pair.target.device), "threads": torch.get_num_threads(),
        "dtype": str(pair.target.dtype).removeprefix("torch."), "torch": torch.__version__,
        "temperature": options.temperature, "repeats": options.repeats,
        "pair": pair_key(options.target, options.draft), "commit": commit(),
    }  # fmt: skip
    console = Console(stderr=True)
    rounds = lambda numbers: track(numbers, "measuring", console=console)  # noqa: E731
    costs = measure(pair, sizes, options.repeats, options.temperature, rounds, machine)
    costs.save(options.out)
    print(f"wrote {options.out} (spread of one measurement {costs.spread:.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
