"""A menu policy as a decision table that engines can use: python -m harness.distil RUN.

(batch, length, recent acceptance) -> plan: in every cell the plan that the policy chose most often
on decoded cycles of the run's pair and workload. Knows no engine's own format.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from harness import build
from harness.decisions import Watched
from harness.edge import guarded
from harness.overrides import CONF
from spec_core.chooser import Table
from spec_core.features import NAMES
from spec_core.learned import MenuPolicy
from spec_core.menu import Menu
from spec_core.policy import load_policy
from spec_core.prompts import spread

AXES = ("batch", "length", "accepted_slow")
EDGES = ([1 / 6, 2 / 6, 3 / 6, 4 / 6], [128 / 1024, 256 / 1024, 512 / 1024], [0.1, 0.2, 0.3, 0.45])


def distilled(features: np.ndarray, choices: np.ndarray, plans: int) -> Table:
    """The table of majority choices; an empty cell takes the nearest cell that is not."""
    axes, edges = [NAMES.index(name) for name in AXES], [list(map(float, e)) for e in EDGES]
    blank = Table(axes, edges, np.zeros([len(e) + 1 for e in edges], np.int64))
    votes = np.zeros((*blank.cells.shape, plans))
    np.add.at(votes, (*blank.places(features), choices), 1)
    filled = np.argwhere(votes.sum(-1) > 0)
    assert len(filled), "there are no decisions to distil"
    cells = np.empty(blank.cells.shape, np.int64)
    for cell in np.ndindex(cells.shape):
        near = filled[np.abs(filled - cell).sum(1).argmin()]
        cells[cell] = votes[tuple(near)].argmax()
    return Table(axes, edges, cells)


def content(table: Table, menu: Menu, agreement: float) -> dict[str, Any]:
    """The JSON: axes in users' units, cells as short names of plans."""
    batch, length, accepted = table.edges
    return {
        "axes": [
            {"name": "batch", "edges": [round(2 ** (6 * e)) for e in batch]},
            {"name": "length", "edges": [round(1024 * e) for e in length]},
            {"name": "accepted tokens per cycle, slow average", "edges": [8 * e for e in accepted]},
        ],
        "note": "n edges make n + 1 bins; a value on an edge falls into the bin above it",
        "plans": dict(zip(menu.names, menu.content, strict=True)),
        "cells": np.array(menu.names, object)[table.cells].tolist(),
        "agreement": round(agreement, 4),
    }


def configuration(folder: Path) -> Any:
    """A run's own, or the defaults where there is none."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    if (folder / "config.yaml").is_file():
        return OmegaConf.load(folder / "config.yaml")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("evaluate")


def decisions(
    policy: MenuPolicy, config: Any, batches: tuple[int, ...] = (1, 4, 16)
) -> tuple[np.ndarray, np.ndarray]:
    """What the policy read and chose on dev prompts, at several loads."""
    if policy.always is not None:  # it reads nothing
        return np.zeros((1, len(NAMES)), np.float32), np.array([policy.always])
    bench = build.make_bench(config, build.make_pair(config))
    dev = build.make_prompts(config, "dev")
    with Watched(policy) as seen:
        for size in batches:
            bench.run(policy, spread(dev, 3)[:size])
            bench.run(policy, spread(dev, 6)[-size:])
    return np.concatenate(seen.features), np.concatenate(seen.choices)


def distil(folder: Path) -> Path:
    """Write decision_table.json beside an exported menu policy."""
    place = folder / "policy" if (folder / "policy" / "policy.json").is_file() else folder
    policy = load_policy(place)
    if not isinstance(policy, MenuPolicy):
        raise ValueError(f"{place}: only policies over a menu become tables")
    run = place.parent if place.name == "policy" else place
    features, choices = decisions(policy, configuration(run))
    table = distilled(features, choices, len(policy.menu))
    agreement = float((table.choose(features) == choices).mean())
    file = place / "decision_table.json"
    file.write_text(json.dumps(content(table, policy.menu, agreement), indent=1) + "\n")
    return file


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Distil a menu policy into a decision table.")
    parser.add_argument("run", type=Path, help="a run folder, or an exported policy")
    print(guarded(lambda: distil(parser.parse_args().run)))


if __name__ == "__main__":
    main()
