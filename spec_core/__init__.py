"""The core decoder of DraftGym. Knows nothing of environments, learners, Hydra or W&B."""

from spec_core.decoder import Generation, SpeculativeDecoder, Stats
from spec_core.pair import Pair, load_pair
from spec_core.plan import AUTOREGRESSIVE, Plan, Template
from spec_core.policy import Fixed, Policy, autoregressive, load_policy
from spec_core.session import Observation, Outcome, Session, cycle

__all__ = [
    "AUTOREGRESSIVE",
    "Fixed",
    "Generation",
    "Observation",
    "Outcome",
    "Pair",
    "Plan",
    "Policy",
    "Session",
    "SpeculativeDecoder",
    "Stats",
    "Template",
    "autoregressive",
    "cycle",
    "load_pair",
    "load_policy",
]
