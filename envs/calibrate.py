"""python -m envs.calibrate --out FILE: measure what cycles cost on this device.

Every cell is the median of its takes; `envs.rounds` says how often each has its turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.cost import Costs, plain
from envs.probes import QUESTIONS, learned, questioned
from envs.provenance import commit, device_name, pair_key
from envs.rounds import Key, Measure, Rounds, Tell, bar, spread
from envs.shapes import drafts, widths
from envs.staircase import next_larger, rising
from envs.stand import MOST, SPARE, Stand, stands
from spec_core.cli import Parser
from spec_core.clock import now
from spec_core.menu import DEFAULT_MENU, Menu
from spec_core.pair import Pair, load_pair
from spec_core.plan import Plan
from spec_core.policy import Fixed
from spec_core.rows import SURE

Shape = tuple[int, int]  # the widest round and rounds
COARSE = (24, 32, 48, 64, 96, 128, 192)
BATCHES = [1, 4, 16, 64]
CONTEXTS = (64, 256, 512)
LARGE = 8  # batches from here on are measured at some sizes only, the others cost the next larger
BRIEF = 8  # rounds
PERIOD = 16  # tokens after which a text repeats itself
FEW = (1, 2, 3, 4, 5, 7, 9, 13, 17)
ASKED = ("target", "draft", "device", "dtype", "recall")  # of a pair, to measure the same one again
KINDS = {
    "draft": ("batches", "contexts", "widths", "levels"),
    "verify": ("batches", "contexts", "nodes"), "line": ("contexts", "nodes"),
    "overhead": ("batches", "contexts"), "decide": ("batches", "contexts"),
    "asked": ("batches", "contexts"), "unasked": ("batches", "contexts"),
}  # fmt: skip


def measurements(
    stand: Stand, context: int, shapes: list[Shape], nodes: list[int]
) -> dict[Key, Measure]:  # fmt: skip
    """What to measure at one batch size, by the cell; context: the text length it stands for."""
    where = (stand.batch, context)
    nodes = few(nodes, stand.batch)
    for width in {width for width, _ in shapes}:
        levels = [level for w, level in shapes if w == width]
        shapes = [s for s in shapes if s[0] != width or s[1] in few(levels, stand.batch)]
    made: dict[Key, Measure] = {
        ("draft", *where, *shape): partial(stand.draft, _beam(*shape)) for shape in shapes
    }
    made |= {("verify", *where, n): partial(stand.verify, stand.tree(n)) for n in nodes}
    if stand.batch == 1:
        made |= {("line", context, n): partial(stand.verify, stand.line(n)) for n in nodes}
    made["overhead", *where] = partial(stand.rest, Fixed(Plan(2)))
    made["decide", *where] = partial(stand.rest, learned())
    asked = questioned()
    made["asked", *where] = partial(stand.asked, asked, asked.levels)
    made["unasked", *where] = partial(stand.asked, asked, False)
    return {key: partial(stand.undone, measure) for key, measure in made.items()}


def _recalling(pair: Pair, context: int) -> Measure:
    """A draft behind a text that repeats itself often enough."""
    period = min(PERIOD, pair.target.vocab_size)
    text = [i % period for i in range(max(context, 2 * (period + SURE)))]
    stand = Stand(pair, [text], QUESTIONS + 2, 0.0)
    return partial(stand.undone, partial(stand.draft, Plan(QUESTIONS)))


def few(sizes: list[int], batch: int) -> list[int]:
    """The sizes to measure at a batch size: the largest always."""
    return [n for n in sizes if batch < LARGE or n in FEW or n == max(sizes)]


def measurable(pair: Pair, context: int) -> int:
    """The length of a measured text: near the pair's limit no draft would have room behind it."""
    assert pair.drafter is not None
    return max(1, min(context, pair.target.max_context - SPARE, pair.drafter.max_context - SPARE))


def _beam(width: int, levels: int) -> Plan:
    pool = 1 + width + (levels - 1) * width * width
    return Plan(levels, width, budget=min(pool, 2 * levels * width + 1))


@torch.no_grad()
def measure(
    pair: Pair, sizes: dict[str, list[int]], repeats: int = 20, temperature: float = 0.0,
    seconds: float = 0.0, shapes: list[Shape] | None = None, tell: Tell = lambda *said: None,
    machine: dict[str, Any] | None = None,
) -> Costs:  # fmt: skip
    """The cost table of a pair on the device it is on; sizes: the axes of `Costs`.

    repeats: most rounds per batch size; seconds: what all may take, but for the least number of
    rounds: an equal share of what is left for each. shapes: which (width, rounds) to measure; None:
    all of them.
    """
    start, found, numbers = now(), dict[Key, list[float]](), list[int]()
    drafts = shapes or [(w, level) for w in sizes["widths"] for level in sizes["levels"]]
    for left, batch in zip(range(len(sizes["batches"]), 0, -1), sizes["batches"], strict=True):

        def said(what: str, spent: float, whole: float, batch: int = batch) -> None:
            tell(f"batch of {batch}, {what}", spent, max(whole, seconds))

        spent = now() - start
        said("preparing", spent, seconds)
        cells = cells_of(pair, batch, sizes, drafts, temperature)
        rounds = Rounds(cells, said, start, spent + max(seconds - spent, 0) / left)
        found |= rounds.run(repeats)
        numbers.append(rounds.number)
    about = {**(machine or {}), "rounds": numbers, "minutes": round((now() - start) / 60, 2)}
    return table(found, sizes, about, pair)


def brief(pair: Pair, batch: int, temperature: float) -> Costs:
    """What a learned policy's decisions cost at one batch size, and as good as nothing else."""
    sizes = {"batches": [batch], "contexts": [64], "widths": [1], "levels": [1], "nodes": [1]}
    return measure(pair, sizes, BRIEF, temperature, seconds=30.0)


def cells_of(
    pair: Pair, batch: int, sizes: dict[str, list[int]], drafts: list[Shape], temperature: float
) -> dict[Key, Measure]:
    """All that is measured at one batch size."""
    cells, most = dict[Key, Measure](), max(QUESTIONS + 2, *sizes["nodes"])
    lengths = [measurable(pair, context) for context in sizes["contexts"]]
    made = stands(pair, batch, lengths, most, temperature)
    for context, stand in zip(reversed(sizes["contexts"]), made, strict=True):
        cells |= measurements(stand, context, drafts, sizes["nodes"])
    if batch == 1 and pair.recalls and temperature == 0:
        cells["recall",] = _recalling(pair, lengths[0])
    return cells


def table(
    found: dict[Key, list[float]], sizes: dict[str, list[int]], machine: dict[str, Any], pair: Pair,
    usual: Callable[[list[float]], Any] = np.median,
) -> Costs:  # fmt: skip
    """Usual values, counts and spreads in the shape of `Costs`; NaN where nothing was measured."""
    early, packed = pair.target.device.type == "cpu", pair.packs

    def of(kind: str, figure: Callable[[list[float]], float]) -> np.ndarray:
        made = np.full([len(sizes[axis]) for axis in KINDS[kind]], np.nan)
        for place in np.ndindex(made.shape):
            cell = (sizes[axis][i] for axis, i in zip(KINDS[kind], place, strict=True))
            values = found.get((kind, *cell))
            made[place] = np.nan if values is None else figure(values)
        return made

    middle = {kind: of(kind, lambda v: float(usual(v))) for kind in KINDS}
    middle |= {kind: rising(middle[kind]) for kind in ("draft", "verify", "line")}
    middle = {kind: next_larger(table) for kind, table in middle.items()}
    trees = middle["verify"]
    fixed, chosen = (middle[kind].mean(1) for kind in ("overhead", "decide"))
    asked = (middle["asked"] - middle["unasked"]).mean(1)
    count = {kind: np.nan_to_num(of(kind, len)).astype(int).tolist() for kind in KINDS}
    spreads = {kind: of(kind, spread) for kind in KINDS}
    return Costs(
        machine, early, packed, **sizes, draft=middle["draft"], verify=trees, overhead=fixed,
        line=np.where(np.isnan(middle["line"]), trees[0], middle["line"]),
        decide=np.maximum(chosen - fixed, 0), ask=np.maximum(asked, 0) / QUESTIONS,
        spread=float(np.nanmedian(spreads["verify"])),
        recall=float(usual(found["recall",])) if ("recall",) in found else None,
        measured={kind: {"count": count[kind], "spread": plain(spreads[kind])} for kind in KINDS},
    )  # fmt: skip


def shapes_of(menu: Menu) -> list[Shape]:
    """The drafts that can occur: each plan may end after any of its rounds."""
    plans = [plan for plan in menu.plans if drafts(plan)]
    found = {(max(widths(plan)), level) for plan in plans for level in range(1, plan.depth + 1)}
    return sorted(found | {(1, 1)})


def sizes_for(menu: Menu, limit: int, batches: list[int]) -> dict[str, list[int]]:
    """The sizes that a menu needs, at a few text lengths; limit: of the target's texts."""
    shapes = shapes_of(menu)
    most = max((plan.budget for plan in menu.plans if drafts(plan)), default=1)
    return {
        "batches": batches,
        "contexts": sorted({min(context, limit) for context in CONTEXTS}),
        "widths": sorted({width for width, _ in shapes}),
        "levels": list(range(1, max(level for _, level in shapes) + 1)),
        "nodes": sorted({*range(1, min(most, 17) + 1), *(n for n in COARSE if n < most), most}),
    }


def parser() -> Parser:
    """The options."""
    made = Parser("python -m envs.calibrate", description="Measure what cycles cost here.")
    add = made.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the JSON to write")
    add("--menu", nargs="+", metavar="PLAN", help="names of plans; default: the default menu")
    for axis, about in (
        ("batches", "sequences at once; default 1 4 16 64"), ("contexts", "tokens of the text"),
        ("widths", "nodes of the widest round"), ("levels", "rounds"), ("nodes", "of a tree"),
    ):  # fmt: skip
        add(f"--{axis}", nargs="+", type=int, metavar="N", help=about)
    add("--minutes", type=float, default=4.0, metavar="M", help="for all rounds; default 4")
    add("--repeats", type=int, default=20, metavar="N", help="most rounds; default 20")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    add("--threads", type=int, metavar="N", help="of torch on the CPU; as the runs will have")
    add("--target", metavar="DIR", help="folder or hub id; default: the embedded pair")
    add("--draft", metavar="DIR", help="folder or hub id of its draft")
    add("--device", default="cpu")
    add("--dtype", help="default float32 on cpu, else bfloat16")
    both = argparse.BooleanOptionalAction
    add("--recall", action=both, help="whether drafts look up the text's own past; default: on cpu")
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


def _sizes(options: argparse.Namespace, menu: Menu, limit: int) -> dict[str, list[int]]:
    sizes = sizes_for(menu, limit, BATCHES)
    for axis in sizes:
        asked = getattr(options, axis)
        if asked:
            sizes[axis] = sorted(set(asked))
            if sizes[axis][0] < 1:
                raise ValueError(f"--{axis} must be at least 1, not {sizes[axis][0]}")
    for axis, most in (("levels", SPARE - 1), ("nodes", MOST)):
        if sizes[axis][-1] > most:
            raise ValueError(f"--{axis}: {most} is the most that can be measured")
    sizes["contexts"] = sorted({min(context, limit) for context in sizes["contexts"]})
    return sizes


def _shapes(options: argparse.Namespace, menu: Menu) -> list[Shape] | None:
    """What the menu needs, or everything where widths or levels were asked for."""
    return None if options.widths or options.levels else shapes_of(menu)


def _run(options: argparse.Namespace) -> int:
    if options.repeats < 1 or not options.minutes > 0:
        raise ValueError("--repeats must be at least 1 and --minutes more than 0")
    menu = Menu.of(options.menu) if options.menu else DEFAULT_MENU
    if options.threads:
        torch.set_num_threads(options.threads)
    pair = load_pair(
        options.target, options.draft, options.device, options.dtype, recall=options.recall
    )
    if pair.drafter is None:
        raise ValueError("the pair has no draft model: give --draft")
    sizes = _sizes(options, menu, pair.target.max_context)
    machine = {
        "device": device_name(pair.target.device), "threads": torch.get_num_threads(),
        "dtype": str(pair.target.dtype).removeprefix("torch."), "torch": torch.__version__,
        "temperature": options.temperature, "commit": commit(),
        "pair": pair_key(options.target, options.draft, pair.recalls),
    }  # fmt: skip
    given = {name: vars(options)[name] for name in ASKED}
    default = parser().get_default
    machine["asked"] = {name: value for name, value in given.items() if value != default(name)}
    with bar() as tell:
        costs = measure(
            pair, sizes, options.repeats, options.temperature, 60 * options.minutes,
            _shapes(options, menu), tell, machine,
        )  # fmt: skip
    costs.save(options.out)
    about = costs.machine
    print(
        f"wrote {options.out} ({', '.join(map(str, about['rounds']))} rounds by batch size in "
        f"{about['minutes']} minutes; spread of "
        f"one measurement {costs.spread:.1%})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
