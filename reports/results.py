"""results.json as it is read back: what must be in it; computes nothing but a missing summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports.statistics import FORMAT, PHASES, summarise

FIELDS: dict[str, type | tuple[type, ...]] = {
    "policy": str,
    "prompt_id": (str, int),
    "domain": str,
    "repeat": int,
    "new_tokens": int,
    "seconds": (int, float),
    "cycles": (int, float),
    "drafted": (int, float),
    "accepted": (int, float),
    "output_tokens": list,
    "phases": dict,
}


class Unreadable(ValueError):
    """A run folder without usable results; the message is one line."""


def read_results(folder: str | Path) -> dict[str, Any]:
    """The folder's results.json, with its summary; raises Unreadable."""
    path = Path(folder) / "results.json"
    if not Path(folder).is_dir():
        raise Unreadable(f"{folder} is not a folder")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unreadable(f"{folder} holds no results.json") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read: {error}") from None
    try:
        _check(results)
        return results | {"summary": summary_of(results)}
    except (AssertionError, KeyError) as error:
        raise Unreadable(f"{path} is not a run's results: {error}") from None


def summary_of(results: dict[str, Any]) -> dict[str, Any]:
    """The stored summary, or one made anew where there is none of this format."""
    summary = results.get("summary") or {}
    if summary.get("format") == FORMAT:
        return summary
    settings = results["settings"]
    return summarise(results["rows"], settings["baseline"], settings["static"])


def _check(results: Any) -> None:
    """Assert that rows and settings have their fields."""
    assert isinstance(results, dict), "it holds no object"
    rows, settings = results.get("rows"), results.get("settings")
    assert isinstance(rows, list) and rows, "it has no rows"
    assert isinstance(settings, dict), "it has no settings"
    for name in ("baseline", "static"):
        assert isinstance(settings.get(name), str), f"settings.{name} is missing"
    for number, row in enumerate(rows):
        assert isinstance(row, dict), f"row {number} is no object"
        for field, kind in FIELDS.items():
            assert isinstance(row.get(field), kind), f"row {number} has no usable {field!r}"
        for phase in PHASES:
            kinds = (int, float)
            assert isinstance(row["phases"].get(phase), kinds), f"row {number} has no {phase!r}"
