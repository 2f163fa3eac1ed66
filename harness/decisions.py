"""What policies decided: recorded choices by feature, and drawn trees; knows no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spec_core import features as feature
from spec_core.learned import Chosen
from spec_core.policy import Policy
from spec_core.render import plain

if TYPE_CHECKING:
    from harness.evaluation import Bench, Prompt

SHOWN = {  # features of the report, by head
    "menu": ("accepted_slow", "hit_fast", "entropy", "doubt", "length"),
    "stop": ("path", "step", "doubt_level", "level", "hit_fast"),
    "verify": ("gain_1", "gain_4", "gain_16", "accepted_slow", "hit_fast"),
}
BEHIND = {"menu": (), "stop": feature.LEVEL_FEATURES, "verify": feature.TREE_FEATURES}
BINS = 4


class Watched:
    """A policy's chooser within a `with`: keeps what it read and chose."""

    def __init__(self, policy: Chosen) -> None:
        self.policy = policy
        self.inner: Any = policy.chooser
        self.features: list[np.ndarray] = []
        self.choices: list[np.ndarray] = []

    def __enter__(self) -> Watched:
        self.policy.chooser = self
        return self

    def __exit__(self, *_: object) -> None:
        self.policy.chooser = self.inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decide(self, features: np.ndarray) -> list[int]:
        """What the chooser says, kept."""
        choice: list[int] = self.inner.decide(features)
        self.features.append(features.copy())
        self.choices.append(np.array(choice))
        return choice


def decided(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt]
) -> dict[str, list[dict[str, Any]]]:
    """What each learned policy with a choice chooses, in runs of its own: watching takes time."""
    found = {}
    for name, policy in policies.items():
        if isinstance(policy, Chosen) and getattr(policy, "always", None) is None:
            with Watched(policy) as watcher:
                for turn in bench.turns(prompts):
                    bench.measure(policy, turn)
            if watcher.choices:  # a stop head may never have been in doubt
                found[name] = shares(watcher)
    return found


def shares(watcher: Watched) -> list[dict[str, Any]]:
    """Per shown feature: quantile bins and each option's share of the choices in them."""
    features, choices = np.concatenate(watcher.features), np.concatenate(watcher.choices)
    head, names = watcher.policy.head, options(watcher.policy)
    behind = [known.name for known in BEHIND[head]]
    places = {name: i - len(behind) for i, name in enumerate(behind)}  # the last columns
    places |= {name: i for i, name in enumerate(feature.NAMES)}
    return [_by_bin(name, features[:, places[name]], choices, names) for name in SHOWN[head]]


def options(policy: Any) -> list[str]:
    """What a policy chooses among, in words."""
    if policy.head == "menu":
        return list(policy.menu.names)
    if policy.head == "stop":
        return ["drafts on", "ends the draft"]
    return [f"{budget} nodes" for budget in policy.budgets]


def _by_bin(name: str, values: np.ndarray, choices: np.ndarray, plans: list[str]) -> dict[str, Any]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = edges.searchsorted(values, "right")
    counts = np.zeros((len(plans), len(edges) + 1))
    np.add.at(counts, (choices, place), 1)
    portion = counts / np.maximum(counts.sum(0), 1)
    chosen = {p: portion[i].round(4).tolist() for i, p in enumerate(plans) if counts[i].any()}
    return {"feature": name, "bins": [round(float(e), 4) for e in edges], "shares": chosen}


def drawn(bench: Bench, name: str, policy: Policy, prompt: Prompt) -> dict[str, str] | None:
    """The largest tree of a prompt's first cycles as text; None where nothing is drafted."""
    kept: list[tuple[int, str]] = []

    def keep(outcome: Any) -> None:
        if outcome.drafted[0] and len(kept) < 8:
            tree, path = outcome.tree, outcome.path[0]
            text = plain(tree, 0, path, bench.pair.decode, outcome.bonus[0])
            kept.append((outcome.accepted[0], text))

    bench.run(policy, [prompt], watch=keep)
    if not kept:
        return None
    return {"policy": name, "prompt_id": prompt["id"], "text": max(kept)[1]}
