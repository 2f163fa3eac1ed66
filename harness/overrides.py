"""Mistyped overrides get a suggestion before Hydra sees them; knows the conf folder only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONF = Path(__file__).resolve().parent.parent / "conf"
_OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w./]*)=(?P<value>.*)", re.DOTALL)


def problem(root: str, arguments: list[str]) -> str | None:
    """What is wrong with the first bad override for conf/<root>.yaml, or None."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{root}.yaml"))
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    keys = {*config, *groups, *_spread(config["defaults"])} - {"defaults"}
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None or match["key"].startswith("hydra"):
            continue
        key, value = match["key"], match["value"]
        if key in groups:
            found = _choice(key, value)
        else:
            first, _, rest = key.partition(".")
            found = _unknown("setting", first, keys) or (
                _inside(first, rest) if rest and first in groups else None
            )
        if found:
            return found
    return None


def _spread(defaults: list[Any]) -> Iterator[str]:
    """The keys of those defaults that are not a group's own but everybody's."""
    for group, choice in (
        pair for entry in defaults if entry != "_self_" for pair in entry.items()
    ):
        path = CONF / group / f"{choice}.yaml"
        if path.exists() and "@package _global_" in path.read_text():
            yield from _keys(path)


def _choice(group: str, value: str) -> str | None:
    """A problem with `group=value`, where value may be a sweep over several."""
    known = {path.stem for path in (CONF / group).glob("*.yaml")}
    for name in value.split(","):
        if re.fullmatch(r"[\w-]+", name) and name != "null":
            said = _unknown(group, name, known)
            if said:
                return said
    return None


def _inside(group: str, key: str) -> str | None:
    """A problem with a key of a group, which some choice of it must have."""
    known = set[str]()
    for path in (CONF / group).glob("*.yaml"):
        known |= set(_keys(path))
    if key.split(".")[0] == "arguments":
        return None
    return _unknown(f"{group} setting", key, known) if known else None


def _keys(path: Path) -> Iterator[str]:
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    yield from (str(key) for key in content or {})


def _unknown(what: str, name: str, known: set[str]) -> str | None:
    if name in known:
        return None
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no {what} {name!r}; {hint}known: {', '.join(sorted(known))}"
