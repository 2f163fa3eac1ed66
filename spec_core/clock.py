"""Seconds, read where the host waits anyway."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter as now
from typing import Any, Protocol

import torch

__all__ = ["Clock", "Seconds", "clock", "now"]


@dataclass
class Seconds:
    """Where the time of one cycle went; `verify` ends with the cycle's one host sync."""

    decide: float = 0.0  # the policy: observing, planning, stopping, learning
    draft: float = 0.0
    verify: float = 0.0
    commit: float = 0.0  # moving KV, ending sequences

    def add(self, other: Seconds) -> None:
        """Those of one more cycle."""
        self.decide += other.decide
        self.draft += other.draft
        self.verify += other.verify
        self.commit += other.commit

    @property
    def total(self) -> float:
        """All of the cycle."""
        return self.decide + self.draft + self.verify + self.commit


class Clock(Protocol):
    """Marks the borders of phases without waiting; they are read after the cycle's sync."""

    def mark(self) -> Any:
        """Now, in the order of the device's work."""

    def between(self, first: Any, last: Any) -> float:
        """Seconds from one mark to a later one."""


class HostClock:
    """For devices that work while the host waits."""

    def mark(self) -> float:
        """The host's time."""
        return now()

    def between(self, first: float, last: float) -> float:
        """Their difference."""
        return last - first


class DeviceClock:
    """For a GPU, which is behind the host: events in its stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> torch.cuda.Event:
        """An event behind all work given so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """By the device's own time; the wait is nothing once the cycle's result was read."""
        last.synchronize()
        return first.elapsed_time(last) / 1e3


def clock(device: torch.device) -> Clock:
    """The clock of a device."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()
