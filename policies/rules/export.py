"""Rules on disk: name, arguments and, where a rule learns, its state. Knows no single rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_core.policy import FORMAT, KINDS, Policy

if TYPE_CHECKING:
    from policies.rules.base import Rule


def write(rule: Rule, folder: str | Path) -> None:
    """Write policy.json."""
    assert rule.name, "only what make_rule made can be written"
    content: dict[str, Any] = {
        "format": FORMAT, "kind": "rule", "name": rule.name, "arguments": rule.arguments,
    }  # fmt: skip
    state = rule.state()
    if state:
        content["state"] = state
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, default=lambda part: part.content)
    (path / "policy.json").write_text(text + "\n")


def read(content: dict, folder: Path) -> Policy:
    """The rule of a policy.json, as it was when it was written."""
    from policies.rules import make_rule

    rule: Any = make_rule(content["name"], **content["arguments"])
    if "state" in content:
        rule.restore(content["state"])
    return rule


KINDS["rule"] = read
