"""The finite list of plans that learned policies choose from; knows no models and no learners."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from spec_core.plan import AUTOREGRESSIVE, Plan, Template

_NAME = re.compile(
    r"(?:(?P<kind>chain|beam|best)-(?P<depth>\d+)(?:x(?P<width>\d+))?"
    r"(?:c(?P<children>\d+))?(?:n(?P<nodes>\d+))?(?:@(?P<threshold>[\d.e-]+))?)"
)


def plan_name(plan: Plan) -> str:
    """A short name: ar, chain-6, chain-8@0.3, beam-6x2n12 (depth x width, n drafted nodes)."""
    if plan.depth == 0 or plan.budget == 1:
        return "ar"
    if plan.template is not None:
        digest = hashlib.sha256(json.dumps(asdict(plan.template)).encode()).hexdigest()[:4]
        return f"template-{plan.depth}n{plan.budget - 1}-{digest}"
    least = f"@{plan.threshold:g}" if plan.threshold else ""
    if plan.width == 1 and plan.children in (0, 1) and plan.frontier == "level":
        cut = f"n{plan.budget - 1}" if plan.budget <= plan.depth else ""
        return f"chain-{plan.depth}{cut}{least}"
    kind = "best" if plan.frontier == "best" else "beam"
    children = f"c{plan.children}" if plan.children not in (0, plan.width) else ""
    return f"{kind}-{plan.depth}x{plan.width}{children}n{plan.budget - 1}{least}"


def read_name(name: str) -> Plan:
    """The plan of a short name (templates have none that can be read)."""
    if name == "ar":
        return AUTOREGRESSIVE
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is no plan; write ar, chain-6, chain-8@0.3, beam-6x2n12 or best-8x1n12"
        )
    depth, width = int(match["depth"]), int(match["width"] or 1)
    nodes = int(match["nodes"] or (depth if match["kind"] == "chain" else 63))
    try:
        return Plan(
            depth, width, int(match["children"] or 0), nodes + 1,
            float(match["threshold"] or 0), "best" if match["kind"] == "best" else "level",
        )  # fmt: skip
    except AssertionError as error:
        raise ValueError(f"{name!r} is no plan: {error}") from None


def read_plan(fields: dict | str) -> Plan:
    """The plan of a short name or of `dataclasses.asdict`, which may hold anything."""
    if isinstance(fields, str):
        return read_name(fields)
    if not isinstance(fields, dict):
        raise ValueError("its plan is not an object")
    fields = dict(fields)
    template = fields.pop("template", None)
    if template is not None:
        template = Template(tuple(template["parents"]), tuple(template["ranks"]))
    counts = [fields[name] for name in ("depth", "width", "children", "budget") if name in fields]
    if template is not None:
        counts += [*template.parents, *template.ranks]
    if not all(type(count) is int for count in counts):
        raise ValueError("depth, width, children, budget and a template's nodes are whole numbers")
    return Plan(**fields, template=template)


@dataclass(frozen=True)
class Menu:
    """Distinct plans, the plain autoregressive step among them."""

    plans: tuple[Plan, ...]

    def __post_init__(self) -> None:
        if len(set(self.plans)) != len(self.plans):
            raise ValueError("the menu holds a plan twice")
        if AUTOREGRESSIVE not in self.plans:
            raise ValueError("the menu lacks the plain autoregressive step; add `ar`")

    @classmethod
    def of(cls, items: Sequence[Plan | dict | str]) -> Menu:
        """From plans, short names, or the dictionaries that `content` gives."""
        return cls(tuple(i if isinstance(i, Plan) else read_plan(i) for i in items))

    def __len__(self) -> int:
        return len(self.plans)

    @property
    def names(self) -> list[str]:
        """Short names, in order."""
        return [plan_name(plan) for plan in self.plans]

    @property
    def content(self) -> list[dict]:
        """The plans as JSON objects."""
        return [asdict(plan) for plan in self.plans]

    @property
    def key(self) -> str:
        """A hash of the plans and their order."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:16]

    def check(self, max_nodes: int, vocab_size: int, room: int = 512) -> None:
        """Refuse plans that cannot fit: too many nodes to verify, to expand, or children."""
        for plan, name in zip(self.plans, self.names, strict=True):
            if plan.depth and plan.budget > max_nodes:
                raise ValueError(
                    f"plan {name} verifies {plan.budget} nodes, {max_nodes} are the most: "
                    "lower its node count or raise max_nodes"
                )
            if plan.depth * plan.width > room:
                raise ValueError(f"plan {name} expands over {room} nodes: lower depth or width")
            if (plan.children or plan.width) > vocab_size:
                raise ValueError(f"plan {name} has more children than the vocabulary {vocab_size}")


DEFAULT_MENU = Menu.of(
    ["ar", "chain-2", "chain-4", "chain-8", "chain-8@0.1", "chain-8@0.3", "chain-12@0.05",
     "chain-12@0.15", "chain-16@0.1", "chain-20@0.05", "beam-6x2n10@0.05", "beam-8x2n12@0.08"]
)  # fmt: skip
