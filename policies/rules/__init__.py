"""The published rules by name; each is imported when it is made. Knows no models and no text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spec_core.policy import Policy

RULES = {
    "autoregressive": "policies.rules.fixed:autoregressive",
    "chain": "policies.rules.fixed:chain",
    "beam": "policies.rules.fixed:beam",
    "template": "policies.rules.fixed:template",
    "sequoia": "policies.rules.sequoia:sequoia",
    "opt_tree": "policies.rules.opt_tree:OptTree",
    "dyspec": "policies.rules.fixed:dyspec",
    "dyspec_budget": "policies.rules.fixed:dyspec_budget",
    "thompson": "policies.rules.thompson:Thompson",
    "ddd": "policies.rules.ddd:DynamicDepth",
    "svip": "policies.rules.doubt:Entropy",
    "confidence": "policies.rules.doubt:Confidence",
    "marginal": "policies.rules.marginal:Marginal",
}


def make_rule(name: str, **arguments: Any) -> Policy:
    """The rule of this name; what it takes is in its factory's signature."""
    if name not in RULES:
        near = get_close_matches(name, RULES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no rule {name!r}; {hint}there are {', '.join(RULES)}")
    module, attribute = RULES[name].split(":")
    factory: Callable[..., Any] = getattr(import_module(module), attribute)
    signature = inspect.signature(factory)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(f"{p.name}={p.default!r}" for p in signature.parameters.values())
        raise ValueError(f"rule {name!r}: {error}; it takes {takes or 'nothing'}") from None
    try:
        rule = factory(**arguments)
    except (AssertionError, TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"rule {name!r}: {error}") from None
    rule.name, rule.arguments = name, arguments  # what `export` writes
    return rule
