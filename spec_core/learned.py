"""Policies that a chooser makes: over the menu, at draft levels, or of node counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spec_core import features as feature
from spec_core.chooser import KINDS, Array, Chooser, Network
from spec_core.doubt import ALWAYS, Doubt
from spec_core.extractor import Extractor, rehearse
from spec_core.menu import Menu, read_plan
from spec_core.plan import Plan
from spec_core.policy import WEIGHTS, Silent, write

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.session import Observation
    from spec_core.tree import Tree


class Chosen(Silent):
    """What all three heads share: a chooser, the features it reads, and how it is written."""

    head = ""

    def __init__(self, chooser: Any, projections: int = 0, room: int = 0) -> None:
        self.chooser: Chooser = chooser
        self.extractor = Extractor(projections, room)
        self.inputs = self.extractor.size

    def check(self, choices: int) -> None:
        """Refuse a chooser that does not fit the features or the choices."""
        chooser: Any = self.chooser
        whole = chooser.kind == "network"
        if chooser.inputs > self.inputs or (whole and chooser.inputs != self.inputs):
            raise ValueError(f"it reads {chooser.inputs} features, there are {self.inputs}")
        if chooser.outputs > choices or (whole and chooser.outputs != choices):
            raise ValueError(f"it chooses among {chooser.outputs}, there are {choices}")

    def plan(self, observation: Observation) -> list[Plan]:
        """One plan per sequence."""
        raise NotImplementedError

    def fields(self) -> dict:
        """What is written beside the chooser."""
        raise NotImplementedError

    def save(self, folder: str | Path) -> None:
        """Write policy.json and policy.safetensors; `load_policy` reads them back."""
        from safetensors.numpy import save as pack

        about = {
            "kind": self.head, "features": feature.VERSION,
            "projections": self.extractor.projections, **self.fields(),
            "chooser": {"kind": self.chooser.kind, **self.chooser.settings()},
        }  # fmt: skip
        write(folder, about, pack(self.chooser.tensors()))


class MenuPolicy(Chosen):
    """Chooses a plan of the menu from the features, once per cycle and sequence.

    together: once per cycle for the whole batch, from the mean of its sequences' features.
    """

    head = "menu"

    def __init__(
        self, menu: Menu, chooser: Any, projections: int = 0, together: bool = False
    ) -> None:
        super().__init__(chooser, projections)
        self.menu, self.together = menu, together
        self.check(len(menu))
        self.common = np.zeros((1, self.extractor.size), np.float32)  # of all texts together
        feature.average(self.common, self.common)  # its machine code is made before a clock runs
        self.lagged = not set(getattr(chooser, "axes", [0])) <= feature.TIMELESS  # reads the past
        self.always: int | None = getattr(chooser, "constant", None)  # no need for features then
        if type(chooser) is Network and chooser.picks is not None:
            rehearse(chooser.picks, self.inputs)

    def plan(self, observation: Observation) -> list[Plan]:
        """The chosen plans."""
        if self.always is not None:
            return [self.menu.plans[self.always]] * observation.batch
        if type(self.chooser) is Network and self.chooser.picks is not None:
            choice = self.extractor.glance(observation, self.chooser.picks)
            if choice is not None:
                return [self.menu.plans[choice]]
        seen = observation if self.lagged else replace(observation, last=None)
        known = self.extractor.look(seen)
        if self.together:
            feature.average(known, self.common)
            return [self._choices(self.common)[0]] * observation.batch
        return self._choices(known)

    def _choices(self, known: Array) -> list[Plan]:
        return [self.menu.plans[i] for i in self.chooser.decide(known)]

    def fields(self) -> dict:
        """The menu, and whether batches decide together."""
        return {"menu": self.menu.content, "together": self.together}

    @classmethod
    def read(cls, content: dict, chooser: Any) -> MenuPolicy:
        """From what was written."""
        whole = content.get("together", False)
        if not isinstance(whole, bool):
            raise ValueError(f"together is true or false, not {whole!r}")
        return cls(Menu.of(content["menu"]), chooser, content["projections"], whole)


class StopPolicy(Chosen):
    """One plan, and after those of its levels that are in doubt a choice: 0 drafts on, 1 stops."""

    head = "stop"

    def __init__(
        self, plan: Plan, chooser: Any, projections: int = 0, doubt: Doubt = ALWAYS
    ) -> None:
        super().__init__(chooser, projections, room=len(feature.LEVEL_FEATURES))
        self.plan_, self.doubt, self.judged = plan, doubt, replace(doubt, judge=self._judge)
        self.inputs += len(feature.LEVEL_FEATURES)
        self.check(2)

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan for everybody."""
        self.extractor.look(observation)
        return [self.plan_] * observation.batch

    @property
    def levels(self) -> Doubt:  # type: ignore[override]
        """Where it is in doubt; drafting may ask a plain network by itself."""
        chooser = self.chooser
        plain = type(chooser) is Network and chooser.net is not None
        return self.judged if plain else self.doubt

    def _judge(self) -> tuple:
        """The row of the only text, and the network, for machine code to ask."""
        return self.extractor.rows, self.chooser.net  # type: ignore[attr-defined]

    def stop(self, level: LevelView) -> list[bool]:
        """Who stops now."""
        feature.fill_level(self.extractor.rows, level)
        return [choice == 1 for choice in self.chooser.decide(self.extractor.rows)]

    def fields(self) -> dict:
        """The plan and the band of doubt."""
        return {"plan": Menu.of([self.plan_, "ar"]).content[0], "doubt": self.doubt.pair}

    @classmethod
    def read(cls, content: dict, chooser: Any) -> StopPolicy:
        """From what was written."""
        doubt = Doubt.of(content.get("doubt", ALWAYS))
        return cls(read_plan(content["plan"]), chooser, content["projections"], doubt)


class TrimPolicy(Chosen):
    """One plan, and a choice of how many of the drafted nodes to verify."""

    head, trims = "verify", True

    def __init__(self, plan: Plan, budgets: list[int], chooser: Any, projections: int = 0) -> None:
        super().__init__(chooser, projections)
        assert budgets and min(budgets) >= 1, "a budget counts the root"
        self.plan_, self.budgets, self.known = plan, budgets, np.empty((0, 0), np.float32)
        self.inputs += len(feature.TREE_FEATURES)
        self.check(len(budgets))

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan for everybody."""
        self.known = self.extractor.observe(observation)
        return [self.plan_] * observation.batch

    def trim(self, tree: Tree) -> list[int]:
        """The chosen node counts."""
        return [self.budgets[i] for i in self.chooser.decide(tree_vector(self.known, tree))]

    def fields(self) -> dict:
        """The plan and the node counts."""
        return {"plan": Menu.of([self.plan_, "ar"]).content[0], "budgets": self.budgets}

    @classmethod
    def read(cls, content: dict, chooser: Any) -> TrimPolicy:
        """From what was written."""
        return cls(read_plan(content["plan"]), content["budgets"], chooser, content["projections"])


def level_vector(known: Array, level: LevelView) -> Array:
    """What a stop chooser reads: the features before the plan and those of a level."""
    return np.concatenate((known, feature.level_features(level)), 1)


def tree_vector(known: Array, tree: Tree) -> Array:
    """What a verify chooser reads: the features before the plan and those of the tree."""
    return np.concatenate((known, feature.tree_features(tree)), 1)


HEADS = {head.head: head for head in (MenuPolicy, StopPolicy, TrimPolicy)}


def read_learned(content: dict, folder: Path) -> Chosen:
    """The policy of a policy.json and the weights beside it."""
    from safetensors.numpy import load as unpack

    if content["features"] != feature.VERSION:
        raise ValueError(
            f"its features are version {content['features']}, here {feature.VERSION}; train anew"
        )
    weights = (folder / WEIGHTS).read_bytes()
    settings = dict(content["chooser"])
    kind = KINDS[settings.pop("kind")]
    return HEADS[content["kind"]].read(content, kind.read(settings, unpack(weights)))
