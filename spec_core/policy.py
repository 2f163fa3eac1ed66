"""The seat of a policy, the rules that need no learning, and loading of exported policies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from spec_core.doubt import Doubt
from spec_core.drafting import LevelView, Stops
from spec_core.menu import read_plan
from spec_core.plan import AUTOREGRESSIVE, Plan

if TYPE_CHECKING:
    from spec_core.session import Observation, Outcome
    from spec_core.tree import Tree

FORMAT = 2
WEIGHTS = "policy.safetensors"


class Policy(Protocol):
    """Chooses plans; sees observations only, never text."""

    trims: bool  # True: the engine also asks how much of the drafted tree to verify

    @property
    def levels(self) -> bool | Doubt:
        """Whether the engine also asks after each draft level, or after those in doubt."""

    def plan(self, observation: Observation) -> list[Plan]:
        """One plan per sequence, once per cycle."""

    def stop(self, level: LevelView) -> Stops:
        """Only if levels: which sequences stop drafting now, [B] bool."""

    def trim(self, tree: Tree) -> list[int]:
        """Only if trims: how many of each tree's nodes to verify, the root included."""

    def update(self, outcome: Outcome) -> None:
        """Learn from a cycle."""


class Silent:
    """Answers for the questions that a policy does not want to be asked."""

    levels: bool | Doubt = False
    trims = False

    def stop(self, level: LevelView) -> Stops:
        """Not asked unless `levels`."""
        raise NotImplementedError("this policy does not stop at levels")

    def trim(self, tree: Tree) -> list[int]:
        """Not asked unless `trims`."""
        raise NotImplementedError("this policy does not trim trees")

    def update(self, outcome: Outcome) -> None:
        """Nothing to learn."""


class Fixed(Silent):
    """The same plan for everybody, always."""

    def __init__(self, plan: Plan) -> None:
        self.plan_ = plan

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan, once per sequence."""
        return [self.plan_] * observation.batch

    def save(self, folder: str | Path) -> None:
        """Write policy.json; `load_policy` reads it back."""
        write(folder, {"kind": "fixed", "plan": asdict(self.plan_)})


def autoregressive() -> Fixed:
    """Plain decoding through the same engine."""
    return Fixed(AUTOREGRESSIVE)


def seal(content: dict, weights: bytes) -> str:
    """A hash of all that was exported."""
    text = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(text + weights).hexdigest()


def write(folder: str | Path, about: dict, weights: bytes = b"") -> None:
    """Write policy.json, sealed, and the weights, if there are any, to policy.safetensors."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, **about}
    content["sha256"] = seal(content, weights)
    if weights:
        (path / WEIGHTS).write_bytes(weights)
    (path / "policy.json").write_text(json.dumps(content, indent=1) + "\n")


def _check(content: dict, folder: Path) -> None:
    """Refuse what was changed since it was exported."""
    weights = (folder / WEIGHTS).read_bytes() if KINDS[content["kind"]] is _learned else b""
    if seal({k: v for k, v in content.items() if k != "sha256"}, weights) != content["sha256"]:
        both = f"it and {WEIGHTS} are not what was exported together"
        raise ValueError(both if weights else "it is not what was exported")


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
    if isinstance(content, dict) and content.get("kind") == "rule" and "rule" not in KINDS:
        raise ValueError(
            f"{file}: a published rule; decode with it from Python: `import policies`, then "
            f"SpeculativeDecoder(pair, load_policy({str(folder)!r}))"
        )
    try:
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        reader = KINDS[content["kind"]]
        _check(content, Path(folder))
        return reader(content, Path(folder))
    except (KeyError, TypeError, AssertionError, ValueError, OSError) as error:
        raise ValueError(f"{file}: not a valid policy ({_said(error)}); export it again") from None


def _said(error: Exception) -> str:
    return f"missing or unknown: {error}" if isinstance(error, KeyError) else str(error)


def _fixed(content: dict, folder: Path) -> Policy:
    return Fixed(read_plan(content["plan"]))


def _learned(content: dict, folder: Path) -> Policy:
    from spec_core.learned import read_learned

    return read_learned(content, folder)


Reader = Callable[[dict, Path], Policy]
# What a policy.json may hold, by its kind; other packages add theirs when they are imported.
KINDS: dict[str, Reader] = {"fixed": _fixed, "menu": _learned, "stop": _learned, "verify": _learned}
