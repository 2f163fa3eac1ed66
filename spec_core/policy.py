"""The seat of a policy, the rules that need no learning, and loading of exported policies."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from spec_core.drafting import LevelView
from spec_core.plan import AUTOREGRESSIVE, Plan, Template

if TYPE_CHECKING:
    from spec_core.session import Observation, Outcome

FORMAT = 1


class Policy(Protocol):
    """Chooses plans; sees observations only, never text."""

    levels: bool  # True: the engine also asks after each draft level

    def plan(self, observation: Observation) -> list[Plan]:
        """One plan per sequence, once per cycle."""

    def stop(self, level: LevelView) -> Tensor:
        """Only if levels: which sequences stop drafting now, [B] bool."""

    def update(self, outcome: Outcome) -> None:
        """Learn from a cycle."""


class Fixed:
    """The same plan for everybody, always."""

    levels = False

    def __init__(self, plan: Plan) -> None:
        self.plan_ = plan

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan, once per sequence."""
        return [self.plan_] * observation.batch

    def stop(self, level: LevelView) -> Tensor:
        """Never asked."""
        raise AssertionError("a fixed plan is not asked after levels")

    def update(self, outcome: Outcome) -> None:
        """Nothing to learn."""

    def save(self, folder: str | Path) -> None:
        """Write policy.json; `load_policy` reads it back."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "kind": "fixed", "plan": asdict(self.plan_)}
        (path / "policy.json").write_text(json.dumps(content, indent=1) + "\n")


def autoregressive() -> Fixed:
    """Plain decoding through the same engine."""
    return Fixed(AUTOREGRESSIVE)


def read_plan(fields: dict) -> Plan:
    """The plan that `dataclasses.asdict` wrote."""
    """A plan of what JSON gave, which may be anything."""
    if not isinstance(fields, dict):
        raise ValueError("its plan is not an object")
    template = fields.pop("template", None)
    if template is not None:
        template = Template(tuple(template["parents"]), tuple(template["ranks"]))
    counts = [fields[name] for name in ("depth", "width", "children", "budget") if name in fields]
    if template is not None:
        counts += [*template.parents, *template.ranks]
    if not all(type(count) is int for count in counts):
        raise ValueError("depth, width, children, budget and a template's nodes are whole numbers")
    return Plan(**fields, template=template)


def load_policy(folder: str | Path) -> Policy:
    """An exported policy: a folder with policy.json."""
    file = Path(folder) / "policy.json"
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: no policy.json there; give the folder that was exported"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable as a policy ({error})") from None
    try:
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        if content["kind"] != "fixed":
            raise ValueError(f"unknown kind {content['kind']!r}")
        return Fixed(read_plan(content["plan"]))
    except (KeyError, TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"{file}: not a valid policy ({error})") from None
