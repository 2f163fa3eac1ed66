"""Tables of medians into staircases: noise and gaps along the last axis; knows no cells."""

from __future__ import annotations

import numpy as np


def next_larger(table: np.ndarray) -> np.ndarray:
    """What was not measured takes the next larger size on the last axis, where there is one."""
    made = table.copy()
    for place in reversed(range(made.shape[-1] - 1)):
        here = made[..., place]
        here[...] = np.where(np.isnan(here), made[..., place + 1], here)
    return made


def rising(table: np.ndarray) -> np.ndarray:
    """The nearest that never falls along the last axis: a level or a node more costs no less.

    Falls are noise, and a learner would find them. NaNs stay.
    """
    made = table.copy()
    for place in np.ndindex(made.shape[:-1]):
        row = made[place]
        known, pools = np.flatnonzero(~np.isnan(row)), list[list[float]]()
        for value in row[known]:
            pools.append([value])
            while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
                pools[-2:] = [pools[-2] + pools[-1]]
        row[known] = [np.mean(pool) for pool in pools for _ in pool]
    return made
