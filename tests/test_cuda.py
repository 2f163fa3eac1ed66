"""Captures and clocks of a GPU, on stand-ins for torch.cuda."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from small import CPU, Mixed, pair_of

from spec_core import (
    Plan,
    SpeculativeDecoder,
    cycle,
)
from spec_core import clock as clocks
from spec_core.graphs import CudaGraphs


class FakeCuda:
    """What a capture asks of torch.cuda, noted down; a capture fails if told to."""

    def __init__(self, monkeypatch, fails: bool = False) -> None:
        self.log, self.fails, self.real = [], fails, torch.cuda.graph.__init__
        self.streams = 0
        names = ("graph_pool_handle", "Stream", "current_stream", "set_stream", "stream")
        for name in (*names, "device", "CUDAGraph", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name, lambda *a: nullcontext()))

    def graph_pool_handle(self):
        return (0, 1)

    def Stream(self, device):
        self.streams += 1
        return FakeStream(f"stream {self.streams}")

    def current_stream(self, device=None):
        return FakeStream("current")

    def set_stream(self, stream) -> None:
        self.log.append(f"back to {stream.name}")

    @contextmanager
    def stream(self, stream):
        self.log.append(f"on {stream.name}")
        yield

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: self.log.append("replay"))

    @contextmanager
    def graph(self, *arguments, **named):
        bound = signature(self.real).bind(None, *arguments, **named).arguments
        self.log.append(f"capture on {bound['stream'].name} in {bound['pool']}")
        yield
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")


class FakeStream:
    """A stream that runs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other) -> None:
        assert self.name != other.name


def test_a_capture_is_warmed_up_elsewhere_and_replayed(monkeypatch):
    cuda, ran = FakeCuda(monkeypatch), []
    recorder = CudaGraphs(torch.device("cuda"))
    replay = recorder(lambda: ran.append(len(ran)) or torch.zeros(1))
    assert cuda.log == ["on stream 1", "capture on stream 2 in (0, 1)"] and len(ran) == 3
    assert replay() is replay() and cuda.log[2:] == ["replay", "replay"] and len(ran) == 3
    assert recorder.captured == 1


def test_a_capture_that_fails_is_said_once_and_done_without(monkeypatch):
    cuda = FakeCuda(monkeypatch, fails=True)
    recorder = CudaGraphs(torch.device("cuda"))
    runs = [lambda: torch.zeros(1), lambda: torch.ones(1)]
    with pytest.warns(UserWarning, match="capturing; decoding is slower") as said:
        assert [recorder(run) for run in runs] == runs
    assert len(said) == 1 and cuda.log[-1] == "back to current" and recorder.captured == 0


class Stream:
    """A device that is behind: work lasts a second per mark, and is done when it is waited for."""

    def __init__(self) -> None:
        self.time, self.waited = 0.0, 0

    def mark(self) -> float:
        self.time += 1.0
        return self.time

    def between(self, first: float, last: float) -> float:
        self.waited += 1
        return last - first


def test_marks_are_read_after_the_cycle(monkeypatch):
    decoder = SpeculativeDecoder(pair_of("near", "fast"), Mixed([Plan(4, width=2)], levels=True))
    session = decoder.open([[1, 2, 3], [5], [7, 8, 9, 10, 11]], max_new_tokens=12)
    session.clock = stream = Stream()
    accept, seen = decoder.verifier.accept, []
    monkeypatch.setattr(
        decoder.verifier, "accept", lambda *a: (seen.append(stream.waited), accept(*a))[1]
    )
    before = stream.waited
    outcome = cycle(session, decoder.policy)
    assert seen == [before] and stream.waited > before
    assert outcome.seconds.verify == 1.0
    assert outcome.seconds.draft >= 1.0 and outcome.seconds.decide >= 2.0


class Event:
    """A CUDA event without CUDA."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = self.done = None

    def record(self, stream) -> None:
        self.at = stream.append(None) or len(stream)

    def synchronize(self) -> None:
        self.done = True

    def elapsed_time(self, other: Event) -> float:
        assert other.done, "an event that was not waited for cannot be read"
        return 1e3 * (other.at - self.at)


def test_a_gpu_is_timed_by_events(monkeypatch):
    stream: list = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    clock = clocks.clock(torch.device("cuda"))
    first, _, last = clock.mark(), clock.mark(), clock.mark()
    assert clock.between(first, last) == 2.0
    assert isinstance(clocks.clock(CPU), clocks.HostClock)
