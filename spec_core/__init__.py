"""The core decoder of DraftGym. Knows nothing of environments, learners, Hydra or W&B."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spec_core.chooser import Network, Table
    from spec_core.cycles import conversation, cycle
    from spec_core.decoder import Generation, SpeculativeDecoder, Stats
    from spec_core.learned import MenuPolicy, StopPolicy, TrimPolicy
    from spec_core.menu import DEFAULT_MENU, Menu, plan_name
    from spec_core.pair import Pair, load_pair
    from spec_core.plan import AUTOREGRESSIVE, Plan, Template
    from spec_core.policy import Fixed, Policy, Silent, autoregressive, load_policy
    from spec_core.session import Observation, Outcome, Session

_HOMES = {
    "chooser": ("Network", "Table"),
    "cycles": ("conversation", "cycle"),
    "decoder": ("Generation", "SpeculativeDecoder", "Stats"),
    "learned": ("MenuPolicy", "StopPolicy", "TrimPolicy"),
    "menu": ("DEFAULT_MENU", "Menu", "plan_name"),
    "pair": ("Pair", "load_pair"),
    "plan": ("AUTOREGRESSIVE", "Plan", "Template"),
    "policy": ("Fixed", "Policy", "Silent", "autoregressive", "load_policy"),
    "session": ("Observation", "Outcome", "Session"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AUTOREGRESSIVE",
    "DEFAULT_MENU",
    "Fixed",
    "Generation",
    "Menu",
    "MenuPolicy",
    "Network",
    "Observation",
    "Outcome",
    "Pair",
    "Plan",
    "Policy",
    "Session",
    "Silent",
    "SpeculativeDecoder",
    "Stats",
    "StopPolicy",
    "Table",
    "Template",
    "TrimPolicy",
    "autoregressive",
    "conversation",
    "cycle",
    "load_pair",
    "load_policy",
    "plan_name",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used: torch takes seconds, `--help` should not."""
    if name not in _HOME:
        raise AttributeError(f"module 'spec_core' has no attribute {name!r}")
    return getattr(import_module(f"spec_core.{_HOME[name]}"), name)
