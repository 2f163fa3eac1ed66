"""Rules on disk: name, arguments and, where a rule learns, its state. Knows no single rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_core import policy
from spec_core.policy import KINDS, Policy

if TYPE_CHECKING:
    from policies.rules.base import Rule


def write(rule: Rule, folder: str | Path) -> None:
    """Write policy.json."""
    assert rule.name, "only what make_rule made can be written"
    about = {"kind": "rule", "name": rule.name, "arguments": rule.arguments}
    state = rule.state()
    if state:
        about["state"] = state
    policy.write(folder, json.loads(json.dumps(about, default=lambda part: part.content)))


def read(content: dict, folder: Path) -> Policy:
    """The rule of a policy.json, as it was when it was written."""
    from policies.rules import make_rule

    rule: Any = make_rule(content["name"], **content["arguments"])
    if "state" in content:
        rule.restore(content["state"])
    return rule


KINDS["rule"] = read
