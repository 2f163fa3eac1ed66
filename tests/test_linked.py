"""Machine code that is called where it is: the same results and errors, and no copies."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError

from spec_core.models.linked import linked


@linked(types.float32[::1], types.int64)
def _item(row, place):
    """A new row of what stands there."""
    if place >= len(row):
        raise IndexError("there is nothing there")
    made = np.empty(2, np.float32)
    made[:] = row[place]
    return made


@njit
def caller(row, place):
    """Calls with a smaller integer, and passes errors on."""
    return _item(row, np.int32(place)).sum()


def test_it_is_called_where_it_is():
    row = np.arange(5, dtype=np.float32)
    assert [caller(row, i) for i in range(5)] == [0.0, 2.0, 4.0, 6.0, 8.0]
    with pytest.raises(IndexError, match="nothing there"):
        caller(row, 7)
    (code,) = caller.inspect_llvm().values()
    named = [line for line in code.splitlines() if f"{__name__}._item" in line]
    assert any(line.startswith("declare") for line in named)
    assert not any(line.startswith("define") for line in named)


def test_other_arguments_are_refused_when_it_is_compiled():
    with pytest.raises(TypingError, match=r"takes array\(float32, 1d, C\), not array"):
        caller(np.zeros((2, 2), np.float32)[:, 0], 0)
