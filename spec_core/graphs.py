"""Forwards of fixed shape over fixed memory, so that a GPU can replay them; knows no trees.

`Static` is a Model around the fast backend. Inputs are padded to a few shapes and copied into
buffers that stay; what runs on the buffers is recorded the second time a shape is used. Caches are
handed out again when their session is gone, so a recording serves many texts. Padding writes its
KV to a slot that nobody reads, and sees its row's root, so that it is finite.
"""

from __future__ import annotations

import warnings
import weakref
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spec_core.models.base import Model, ModelError, View, first_line
from spec_core.models.cache import SlotCache
from spec_core.models.fast import FastModel

Graphs = Literal["auto", "off", "static"]  # static: the same buffers, nothing recorded
Run = Callable[[], Tensor]  # reads and writes the same memory at each call
Recorder = Callable[[Run], Run]  # what does the same with less overhead

QUERIES = (1, 2, 4, 8, 16, 32, 64, 128)
CATCH_UP = 2  # more queries, of which not all are kept, are a prefill: it runs as it comes
BLOCK = 64  # slots behind the prefix that a mask row covers at least
FREE_ARENAS = 3  # caches kept for sessions to come


def span_bucket(span: int, smallest: int = 128) -> int:
    """The least of `smallest` times 1, 2, 3, 4, 6, 8, 12, 16 .. that is not below span."""
    size = smallest
    while size < span:
        if size > smallest and span <= size * 3 // 2:
            return size * 3 // 2
        size *= 2
    return size


def power_of_two(number: int) -> int:
    """The least power of two that is not below it."""
    return 1 << (number - 1).bit_length()


def direct(run: Run) -> Run:
    """Records nothing."""
    return run


class CudaGraphs:
    """A recorder: captures CUDA graphs, all of them in one memory pool."""

    WARM_UP = 2  # libraries choose kernels and take workspaces before the capture

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()
        self.side, self.stream = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self.captured, self.usable = 0, True

    def __call__(self, run: Run) -> Run:
        """Replay `run`; if it cannot be captured, say so once and go on without."""
        if not self.usable:
            return run
        current = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.device(self.device):
                return self._capture(run)
        except RuntimeError as error:
            self.usable = False
            torch.cuda.set_stream(current)  # a capture that fails leaves its own in place
            warnings.warn(f"no CUDA graphs: {first_line(error)}; decoding is slower", stacklevel=2)
            return run

    def _capture(self, run: Run) -> Run:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            for _ in range(self.WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(self.side)
        graph = torch.cuda.CUDAGraph()
        # Not the side stream: workspaces taken during the capture lie in the graphs' own pool.
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            logits = run()
        self.captured += 1

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay


class Shape(NamedTuple):
    """What is fixed in a recording."""

    start: int  # rows of the arena
    stop: int
    queries: int
    block: int  # slots behind the prefix that the mask covers
    span: int


class Step:
    """One forward of one shape: its input buffers and what runs on them."""

    def __init__(self, model: FastModel, cache: SlotCache, shape: Shape) -> None:
        batch, queries = shape.stop - shape.start, shape.queries
        self.scratch = cache.slots - 1
        self.tokens, self.positions, self.slots = torch.zeros(
            3, batch, queries, dtype=torch.int64, device=model.device
        )
        self.prefix = torch.zeros(batch, dtype=torch.int64, device=model.device)
        self.ancestors = torch.zeros(
            batch, queries, shape.block, dtype=torch.bool, device=model.device
        )
        view = View(self.prefix, self.ancestors, shape.span)
        inputs = (self.tokens, self.positions, self.slots)
        self.run: Run = partial(model.forward, *inputs, view, cache, queries)
        self.uses = 0

    def load(self, tokens: Tensor, positions: Tensor, slots: Tensor, view: View) -> None:
        """Copy a forward's inputs in front of the padding."""
        count, block = tokens.shape[1], view.ancestors.shape[2]
        self.tokens[:, :count] = tokens
        self.positions[:, :count] = positions
        self.slots[:, :count] = slots
        self.prefix.copy_(view.prefix)
        self.ancestors.zero_()
        self.ancestors[:, :count, :block] = view.ancestors
        if count < self.tokens.shape[1]:
            self.positions[:, count:].zero_()  # before every window's edge
            self.slots[:, count:].fill_(self.scratch)
            self.ancestors[:, count:, 0].fill_(True)

    def __call__(self, recorder: Recorder) -> Tensor:
        """Logits of all queries, in memory that a later step may overwrite."""
        self.uses += 1
        if self.uses == 2:  # a shape that comes only once is not worth it
            self.run = recorder(self.run)
        return self.run()


class Arena:
    """One cache and the steps over it; lent to one session at a time."""

    def __init__(self, model: FastModel, batch: int, slots: int) -> None:
        self.model, self.batch, self.slots = model, batch, slots
        self.whole = model.new_cache(batch, slots)
        self.steps: dict[Shape, Step] = {}
        self.parts: dict[tuple[int, int], SlotCache] = {}
        self.lease: weakref.ref[Lease] | None = None

    @property
    def free(self) -> bool:
        """Whether nobody holds it."""
        return self.lease is None or self.lease() is None

    def lend(self, batch: int) -> Lease:
        """Its first rows, emptied."""
        self.whole.data.zero_()  # a broken text may have left a NaN, which no mask hides
        lease = Lease(self, 0, batch)
        self.lease = weakref.ref(lease)
        return lease

    def rows(self, start: int, stop: int) -> SlotCache:
        """Some rows, always in the same object."""
        if (start, stop) not in self.parts:
            self.parts[start, stop] = self.whole.rows(start, stop)
        return self.parts[start, stop]

    def step(self, shape: Shape) -> Step:
        """The step of this shape."""
        if shape not in self.steps:
            cache = self.rows(shape.start, shape.stop)
            with torch.inference_mode(False):
                self.steps[shape] = Step(self.model, cache, shape)
        return self.steps[shape]


class Lease:
    """Rows of an arena as a Cache; the arena is free when a session's leases are gone."""

    def __init__(self, arena: Arena, start: int, stop: int, owner: Lease | None = None) -> None:
        self.arena, self.start, self.stop = arena, start, stop
        self.owner = owner  # keeps the arena taken as long as any of its rows is held
        self.cache = arena.rows(start, stop)
        self.data = self.cache.data

    def rows(self, start: int, stop: int) -> Lease:
        """A view of some of the batch's rows, sharing memory."""
        return Lease(self.arena, self.start + start, self.start + stop, self.owner or self)

    def move(self, row: int, source: list[int], target: list[int]) -> None:
        """Copy slots to others of one row, which are not behind them."""
        self.cache.move(row, source, target)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row over another."""
        self.cache.copy_row(source, target, length)


class Static:
    """A fast model whose forwards run over fixed memory, recorded where that helps."""

    def __init__(self, model: FastModel, recorder: Recorder = direct, smallest: int = 128) -> None:
        self.model, self.recorder = model, recorder
        self.smallest = smallest  # span
        self.vocab_size, self.max_context = model.vocab_size, model.max_context
        self.device, self.dtype, self.config = model.device, model.dtype, model.config
        self.arenas: list[Arena] = []

    def new_cache(self, batch: int, slots: int) -> Lease:
        """Room for `slots` tokens in each of `batch` rows, and one slot for padding."""
        slots = -(-(slots + 1) // self.smallest) * self.smallest
        free = [arena for arena in self.arenas if arena.free]
        fitting = [arena for arena in free if arena.batch >= batch and arena.slots >= slots]
        if fitting:
            return min(fitting, key=lambda arena: arena.batch * arena.slots).lend(batch)
        for arena in free[: max(0, len(free) - FREE_ARENAS + 1)]:
            self.arenas.remove(arena)
        with torch.inference_mode(False):
            self.arenas.append(Arena(self.model, batch, slots))
        return self.arenas[-1].lend(batch)

    def forward(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, view: View, cache: Lease, keep: int
    ) -> Tensor:  # fmt: skip
        """Logits [B, keep, V] of the last `keep` queries; writes the queries' KV to `slots`."""
        count = tokens.shape[1]
        if count > QUERIES[-1] or keep < count > CATCH_UP:
            return self.model.forward(tokens, positions, slots, view, cache.cache, keep)
        shape = Shape(
            cache.start, cache.stop,
            queries=QUERIES[bisect_left(QUERIES, count)],
            block=max(BLOCK, power_of_two(view.ancestors.shape[2])),
            span=min(span_bucket(view.span, self.smallest), cache.arena.slots),
        )  # fmt: skip
        step = cache.arena.step(shape)
        step.load(tokens, positions, slots, view)
        return step(self.recorder)[:, count - keep : count].clone()


def static(model: Model, graphs: Graphs = "auto") -> Model:
    """The model behind fixed buffers where asked for; other backends are left as they are."""
    if graphs not in ("auto", "off", "static"):
        raise ModelError(f"graphs must be auto, off or static, not {graphs!r}")
    if graphs == "off" or not isinstance(model, FastModel):
        return model
    if graphs == "static":
        return Static(model)
    return Static(model, CudaGraphs(model.device)) if model.device.type == "cuda" else model
