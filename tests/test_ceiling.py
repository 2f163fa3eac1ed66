"""What foresight by chances is worth: all that the oracle wins where the chances are certain."""

from __future__ import annotations

import numpy as np
import pytest
from traces import costs_of, lettered, recorded

from benchmarks.ceiling import World, accepted, compared, foretold, learned
from spec_core import Menu
from spec_core.menu import read_name

MENU = Menu.of(["ar", *(f"chain-{depth}" for depth in range(1, 6))])
FIXED = read_name("chain-5@0.2")
CHEAP = costs_of(draft=costs_of().draft * 1e-3)  # so that drafting pays


@pytest.fixture(scope="module")
def trace():
    """A recording of a tiny pair."""
    return recorded(lettered(), Menu.of(["ar", "chain-5"]), count=6).with_menu(MENU)


def test_who_is_certain_of_what_comes_is_the_oracle(trace):
    certain = (np.arange(5) < accepted(trace)[:, None]).astype(float)
    found = compared(World(trace, CHEAP, FIXED, certain), draws=1)
    for world in found.values():
        assert world["foresight"] == pytest.approx(world["oracle"], rel=1e-12)
        assert world["share"] == pytest.approx(1.0)
    assert found["drawn"] == pytest.approx(found["recorded"], rel=1e-12)


def test_who_is_not_certain_loses_to_the_oracle_and_not_to_the_plan(trace):
    world = World(trace, CHEAP, FIXED, np.full((len(trace), 5), 0.5))
    drawn = compared(world, draws=20)["drawn"]
    assert drawn["fixed"] <= drawn["foresight"] * 1.001 and drawn["foresight"] < drawn["oracle"]


def test_chances_are_learned_from_what_was_accepted(trace):
    chances = foretold(trace, learned(trace, MENU.plans[-1], 300))
    length, levels = accepted(trace)[:, None], np.arange(5)
    tried = (levels <= length) & (levels < trace.shapes["drafted"][:, -1:])
    hit = (levels < length)[tried]
    assert chances[tried][hit].mean() > chances[tried][~hit].mean() + 0.1
    assert (chances[levels >= trace.shapes["drafted"][:, -1:]] == 0).all()
