"""Seconds, read where the host waits anyway."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter as now

__all__ = ["Seconds", "now"]


@dataclass
class Seconds:
    """Where the time of one cycle went; `verify` ends with the cycle's one host sync."""

    decide: float = 0.0  # the policy: observing, planning, stopping, learning
    draft: float = 0.0
    verify: float = 0.0
    commit: float = 0.0  # moving KV, ending sequences

    @property
    def total(self) -> float:
        """All of the cycle."""
        return self.decide + self.draft + self.verify + self.commit
