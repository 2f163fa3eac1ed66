"""A live batch that is kept full: where a text ends another one begins; knows no prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from spec_core.clock import now
from spec_core.cycles import cycle
from spec_core.policy import Policy
from spec_core.sequence import Sequence
from spec_core.session import Outcome, Session


@torch.no_grad()
def kept_full(
    session: Session, policy: Policy, fresh: Callable[[], Sequence]
) -> Iterator[tuple[Outcome, float]]:
    """Cycles and their seconds, without end: who reads stops. The target reads prompts between."""
    while True:
        start = now()
        outcome = cycle(session, policy)
        yield outcome, now() - start
        while len(session.rows) < session.capacity:
            session.admit(fresh())
