"""What cycles cost on one device: a staircase of measured medians, looked up, never fitted.

A size between two measured ones costs what the next larger one does; a text's length, whose keys
are read one by one, in proportion. Knows no models; `price` puts a table and a recording together.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.shapes import CPU, branches, drafts, widths
from envs.shards import replace_file
from envs.trace import Trace
from spec_core.growth import grow

SCHEMA = 5
GRAIN = 16  # tokens: shorter differences between texts are not priced
Floats = NDArray[np.float64]
TABLES = ("draft", "verify", "line", "overhead", "decide", "ask")
AXES = ("batches", "contexts", "widths", "levels", "nodes")


@dataclass(frozen=True, eq=False)
class Costs:
    """Seconds of a whole batch; a cell that was not measured is NaN."""

    machine: dict[str, Any]  # device, threads, dtype, pair, commit
    early: bool  # a draft that nobody needs ends early, trees are as large as they are
    packed: bool  # padding is not computed: a batch's trees cost what their mean does
    batches: list[int]
    contexts: list[int]  # tokens of the text
    widths: list[int]  # nodes of the widest round
    levels: list[int]  # rounds
    nodes: list[int]  # of a tree, the root included
    draft: Floats  # [batches, contexts, widths, levels] all rounds and the tree
    verify: Floats  # [batches, contexts, nodes] the target's forward and what follows it
    line: Floats  # [contexts, nodes] the same of a single text where no node has a sibling
    overhead: Floats  # [batches] the rest of a cycle under a fixed plan
    decide: Floats  # [batches] what a learned policy adds: features and a small network
    ask: Floats  # [batches] what each question after the plan adds: a level's or a tree's
    spread: float  # relative spread of one measurement
    recall: float | None = None  # a single text's draft that needs no model
    # By table: how often each cell was measured ("count"), and its own relative spread ("spread").
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = [len(getattr(self, axis)) for axis in AXES]
        assert all(list(getattr(self, a)) == sorted(set(getattr(self, a))) for a in AXES)
        assert self.draft.shape == tuple(sizes[:4]), "draft: one cell per size"
        assert self.verify.shape == (*sizes[:2], sizes[4]), "verify: one cell per size"
        assert self.line.shape == (sizes[1], sizes[4]), "line: one cell per size"
        assert self.overhead.shape == self.decide.shape == self.ask.shape == (sizes[0],)

    def save(self, file: str | Path) -> None:
        """Write JSON; `read` reads it back."""
        content = {"schema": SCHEMA, **asdict(self)}
        for name in TABLES:
            content[name] = plain(content[name])
        replace_file(Path(file), (json.dumps(content) + "\n").encode())

    @classmethod
    def read(cls, file: str | Path) -> Costs:
        """From JSON; refuses what is not a cost table."""
        shown = shlex.quote(str(file))
        try:
            content = json.loads(Path(file).read_text())
            if content.pop("schema") != SCHEMA:
                raise ValueError(f"another schema than {SCHEMA}")
            for name in TABLES:
                content[name] = np.array(content[name], np.float64)
            return cls(**content)
        except FileNotFoundError:
            raise ValueError(
                f"{file}: no such file; measure this device: python -m envs.calibrate --out {shown}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"{file}: not a cost table ({error!r}); python -m envs.calibrate --out {shown}"
            ) from None

    def _command(self, **more: int) -> str:
        """What measures all sizes of this table and one more of some axes."""
        words: list[Any] = ["envs.calibrate"]
        for axis in AXES:
            sizes = {*getattr(self, axis), *([more[axis]] if axis in more else [])}
            words += [f"--{axis}", *sorted(sizes)]
        for setting, value in self.machine.get("asked", {}).items():
            both = {True: [f"--{setting}"], False: [f"--no-{setting}"]}
            words += both[value] if isinstance(value, bool) else [f"--{setting}", value]
        for setting in ("temperature", "threads"):
            words += [f"--{setting}", self.machine[setting]] if setting in self.machine else []
        return f"python -m {shlex.join(map(str, [*words, '--out', 'costs.json']))}"

    def unlike(self, temperature: float, pair: str) -> list[str]:
        """What it says of itself that does not fit; it may be meant so."""
        said, own = list[str](), self.machine
        if (own.get("temperature", temperature) > 0) != (temperature > 0):
            said.append(f"measured at temperature {own['temperature']:g}, not {temperature:g}")
        if own.get("pair", pair) != pair:
            said.append("measured with another pair, or with recall where there is none")
        return said

    def reaches(self, length: int) -> None:
        """Refuse a text that is longer than any that was measured."""
        self._place("contexts", length)

    def _place(self, axis: str, sizes: ArrayLike) -> NDArray:
        """Where on an axis the next measured size is."""
        known, wanted = getattr(self, axis), np.asarray(sizes)
        place = np.searchsorted(known, wanted)
        if (place == len(known)).any():
            raise ValueError(
                f"no cost was measured for {axis} {int(wanted.max())}, {known[-1]} is the most: "
                + self._command(**{axis: int(wanted.max())})
            )
        return place

    def _cells(self, table: str, axes: dict[str, ArrayLike]) -> Floats:
        places = {axis: self._place(axis, sizes) for axis, sizes in axes.items()}
        found = self._at(table, places)
        if "contexts" in axes:
            behind = np.maximum(places["contexts"] - 1, 0)
            low, high = (np.array(self.contexts)[p] for p in (behind, places["contexts"]))
            share = (np.asarray(axes["contexts"]) - low) / np.maximum(high - low, 1)
            before = self._at(table, places | {"contexts": behind})
            found = np.where(high > low, before + share * (found - before), found)
        if np.isnan(found).any():
            cell = np.argwhere(np.isnan(np.atleast_1d(found)))[0]
            sizes = [np.atleast_1d(s) for s in np.broadcast_arrays(*axes.values())]
            missing = {a: int(s[tuple(cell)]) for a, s in zip(axes, sizes, strict=True)}
            said = ", ".join(f"{axis} {size}" for axis, size in missing.items())
            raise ValueError(f"no {table} cost was measured for {said}: {self._command(**missing)}")
        return found

    def _at(self, table: str, places: dict[str, NDArray]) -> Floats:
        made: Floats = getattr(self, table)[tuple(np.broadcast_arrays(*places.values()))]
        return made

    def drafting(
        self, width: ArrayLike, levels: ArrayLike, context: ArrayLike, batch: int = 1
    ) -> Floats:
        """Seconds of so many rounds, none of them wider than `width`; no round costs nothing."""
        rounds = np.asarray(levels)
        sizes = {"batches": batch, "contexts": context, "widths": width}
        return np.where(
            rounds > 0, self._cells("draft", {**sizes, "levels": np.maximum(rounds, 1)}), 0.0
        )

    def verifying(
        self, nodes: ArrayLike, context: ArrayLike, batch: int = 1, branched: ArrayLike = True
    ) -> Floats:
        """Seconds of verifying trees of so many nodes, and the overhead of the cycle."""
        sizes = {"contexts": context, "nodes": nodes}
        own = self._cells("verify", {"batches": batch, **sizes})
        line = own if batch > 1 or np.all(branched) else self._cells("line", sizes)
        own = np.where(branched, own, line)
        return own + self._cells("overhead", {"batches": batch})

    def deciding(self, batch: int = 1) -> float:
        """Seconds that a learned policy adds to a cycle."""
        return float(self._cells("decide", {"batches": batch}))

    def recalling(self) -> float:
        """Seconds of a single text's draft that needs no model."""
        if self.recall is None:
            raise ValueError(
                "what a draft costs that recalls was not measured: "
                "python -m envs.calibrate --recall --temperature 0 --out FILE"
            )
        return self.recall

    def asking(self, batch: int = 1) -> float:
        """Seconds of each question that a learned policy is asked after the plan."""
        return float(self._cells("ask", {"batches": batch}))

    def seconds(
        self, widths: ArrayLike, levels: ArrayLike, nodes: ArrayLike, context: ArrayLike,
        batch: int = 1, branched: ArrayLike = True,
    ) -> Floats:  # fmt: skip
        """A whole cycle of a whole batch, without a learned policy's deciding."""
        draft = self.drafting(widths, levels, context, batch)
        return draft + self.verifying(nodes, context, batch, branched)


def plain(table: Floats) -> list[Any]:
    """Four digits of each cell, fit for JSON; None where nothing was measured."""
    cells = [None if np.isnan(v) else float(f"{v:.4g}") for v in table.flat]
    made: list[Any] = np.array(cells, object).reshape(table.shape).tolist()
    return made


@dataclass(frozen=True, eq=False)
class Prices:
    """What every plan costs at every position of a recording, for a whole batch that does so."""

    draft: Floats  # [N, M]
    nodes: NDArray  # [N, M] of the tree that is verified, the root included
    seconds: Floats  # [N, M] all of the cycle


def price(trace: Trace, costs: Costs, batch: int = 1) -> Prices:
    """The prices of a recording on a device."""
    costs.reaches(int(trace.lengths.max()))
    levels, nodes = run_sizes(trace, costs.early)
    alone = costs.early and batch == 1  # so that the past may draft instead of the model
    run = levels - trace.shapes["spared"] if alone else levels
    widest = [max(widths(plan)) if drafts(plan) else 1 for plan in trace.menu.plans]
    context = lengths(costs, grains(trace))[:, None]
    width = np.where(run > 0, np.broadcast_to(widest, run.shape), 1)
    draft = costs.drafting(width, run, context, batch)
    recalled = (levels > 0) & (run == 0)
    if recalled.any():
        draft = np.where(recalled, costs.recalling(), draft)
    branched = [branches(plan) for plan in trace.menu.plans]
    return Prices(draft, nodes, draft + costs.verifying(nodes, context, batch, branched))


def grains(trace: Trace) -> NDArray:
    """[N] the texts' lengths in steps of GRAIN."""
    made: NDArray = trace.lengths // GRAIN
    return made


def lengths(costs: Costs, grains: NDArray) -> NDArray:
    """The lengths that stand for grains: their middles, of the last one what was measured."""
    middle: NDArray = grains * GRAIN + GRAIN // 2
    return np.minimum(middle, np.maximum(costs.contexts[-1], grains * GRAIN))


def run_sizes(trace: Trace, early: bool) -> tuple[NDArray, NDArray]:
    """Rounds that are run and nodes that are verified, [N, M] each, on a kind of device."""
    if early:
        return trace.shapes["levels"].astype(int), trace.shapes["drafted"].astype(int) + 1
    parts = [_full(plan, trace.rooms, trace.meta.max_nodes) for plan in trace.menu.plans]
    return np.stack([p[0] for p in parts], 1), np.stack([p[1] for p in parts], 1)


def _full(plan: Any, rooms: NDArray, max_nodes: int) -> Sequence[NDArray]:
    """Rounds and nodes [N] of a plan where nothing ends early."""
    fits = np.clip(rooms, 0, plan.depth)
    sizes = {}
    for depth in np.unique(fits).tolist():
        part = plan.within(depth, max_nodes)
        sizes[depth] = (part.depth, grow((part,), False, CPU).nodes) if drafts(part) else (0, 1)
    made = np.array([sizes.get(depth, (0, 1)) for depth in range(plan.depth + 1)])
    return made[fits].T
