"""What the cycles of a step come to, as infos tell it; knows no models and no gymnasium."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIGURES = ("tokens", "seconds", "accepted", "drafted", "depth", "cycles", "texts")
NOW = 500.0  # steps that `rate` remembers
TYPES = {"seconds": np.float64, "ended": np.bool_}  # of info columns; the others are whole numbers


def told(figures: NDArray[np.float64], whole: bool = True) -> dict[str, NDArray]:
    """The columns of an info, from [FIGURES, B] sums over the cycles of a step.

    whole: all but the seconds are whole numbers; means over texts are not.
    """
    names = (*FIGURES[:-1], "ended")
    return {
        name: row.astype(TYPES.get(name, np.int64) if whole else np.float64)
        for name, row in zip(names, figures, strict=True)
    }
