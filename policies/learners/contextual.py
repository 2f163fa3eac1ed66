"""Bandits that look at the features: in bins of two of them, or linearly in all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.learners.bandits import Arms, GaussianThompson
from policies.learners.base import Array, Choices, Seat, Wide
from policies.learners.networks import FLOOR
from spec_core.chooser import Chooser, Network, Table
from spec_core.features import NAMES

LOAD = NAMES.index("batch")
BENDS = np.arange(1, 6, dtype=np.float32) / 6  # loads of 2, 4, 8, 16, 32


class BinnedThompson(GaussianThompson):
    """Gaussian Thompson sampling in each bin of two features, shrunk to the arms' overall means.

    The first `settle` pulls are random, so that no arm is judged by the moods it met; their
    quantiles are the edges.
    """

    kept = (*Arms.kept, "early", "edges", "cell_counts", "cell_sums")

    def __init__(
        self, seat: Seat, seed: int = 0, axes: Sequence[str] = ("accepted_slow", "entropy"),
        bins: int = 4, settle: int = 256, shrink: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(seat, seed)
        for name in axes:
            if name not in NAMES:
                raise ValueError(f"{name!r} is no feature; known: {', '.join(NAMES)}")
        if bins < 1 or shrink <= 0:
            raise ValueError(f"bins ({bins}) must be at least 1 and shrink ({shrink}) positive")
        self.axes, self.bins = [NAMES.index(name) for name in axes], bins
        self.settle, self.shrink = settle, shrink
        self.early = np.zeros((0, len(axes) + 2))  # features, arm, reward of the first pulls
        self.edges: list[Wide] = []
        self.cell_counts, self.cell_sums = np.zeros((2, 1, seat.choices))

    def count(self, features: Array, actions: Choices, rewards: Wide) -> None:
        """Count in the cells too, or remember until there are cells."""
        super().count(features, actions, rewards)
        columns = features[:, self.axes]
        if self.edges:
            return self._fill(columns, actions, rewards)
        self.early = np.vstack((self.early, np.column_stack((columns, actions, rewards))))
        if len(self.early) >= self.settle:
            self._settle()

    def _settle(self) -> None:
        """Set the edges and sort the first pulls into the cells."""
        columns = self.early[:, :-2].astype(np.float32)
        self.edges = [self.split(column).astype(np.float64) for column in columns.T]
        cells = int(np.prod([len(edges) + 1 for edges in self.edges]))
        self.cell_counts, self.cell_sums = np.zeros((2, cells, self.seat.choices))
        self._fill(columns, self.early[:, -2].astype(np.int64), self.early[:, -1])
        self.early = self.early[:0]

    def split(self, column: Array) -> Array:
        """The edges of an axis whose first values these are."""
        shares = np.arange(1, self.bins) / self.bins
        return np.unique(np.quantile(column, shares).astype(np.float32))

    def _fill(self, columns: Array, actions: Choices, rewards: Wide) -> None:
        cells = self._cells(columns)
        np.add.at(self.cell_counts, (cells, actions), 1)
        np.add.at(self.cell_sums, (cells, actions), rewards)

    def _cells(self, columns: Array) -> Choices:
        pairs = zip(self.edges, columns.T, strict=True)
        places = [edges.astype(np.float32).searchsorted(c, "right") for edges, c in pairs]
        return np.ravel_multi_index(places, [len(edges) + 1 for edges in self.edges])

    def _cell_values(self) -> Wide:
        """Posterior means, [cells, choices]."""
        prior = self.shrink * self.values()
        return (prior + self.cell_sums) / (self.shrink + self.cell_counts)

    def act(self, features: Array) -> Choices:
        """The best arm of a draw in every env's cell."""
        if not self.edges:
            return self.random.integers(self.seat.choices, size=len(features))
        cells = self._cells(features[:, self.axes])
        counts, shrink = self.cell_counts[cells], self.shrink
        within = np.maximum(self.squares - self.counts * self.means**2, 0).sum()
        noise = within / max(self.counts.sum() - self.seat.choices, 1)
        share = shrink / (shrink + counts)  # of the overall mean, which is uncertain too
        variance = noise / (shrink + counts) + share**2 * noise / (1 + self.counts)
        draws = self.random.standard_normal(counts.shape)
        return (self._cell_values()[cells] + np.sqrt(variance) * draws).argmax(1)

    def best(self, features: Array) -> Choices:
        """The arm worth most in the row's cell."""
        if not self.edges:
            return super().best(features)
        return self._cell_values()[self._cells(features[:, self.axes])].argmax(1)

    def chooser(self) -> Chooser:
        """A table of the cells."""
        if not self.edges:
            return super().chooser()
        cells = self._cell_values().argmax(1).reshape([len(edges) + 1 for edges in self.edges])
        return Table(self.axes, [edges.tolist() for edges in self.edges], cells)


class LinUcb(Arms):
    """Disjoint LinUCB (Li et al. 2010): a ridge regression per arm, rewards less the pooled mean.

    Features are standardised and the bonus is in units of the rewards' standard deviation, so
    that the ridge means the same everywhere. Over the load the lines bend, at powers of two.
    """

    kept = (*Arms.kept, "gram", "moments")

    def __init__(
        self, seat: Seat, seed: int = 0, exploring: float = 1.0, ridge: float = 1.0
    ) -> None:
        super().__init__(seat, seed)
        if ridge <= 0 or exploring < 0:
            raise ValueError(f"ridge ({ridge}) and exploring ({exploring}) must be positive")
        self.exploring, self.ridge, size = exploring, ridge, 1 + seat.inputs + len(BENDS)
        self.gram = np.zeros((seat.choices, size, size))  # sums of x x^T, of what `_basis` says
        self.moments = np.zeros((seat.choices, size))  # sums of reward * x

    def count(self, features: Array, actions: Choices, rewards: Wide) -> None:
        """Add the rows to the pulled arms' sums."""
        super().count(features, actions, rewards)
        x = _basis(features)
        np.add.at(self.gram, actions, x[:, :, None] * x[:, None, :])
        np.add.at(self.moments, actions, rewards[:, None] * x)

    def _standard(self) -> tuple[Wide, Wide]:
        """T with T x the standardised features, and the arms' T gram T^T + ridge."""
        total = self.gram.sum(0)
        mean = total[0] / max(total[0, 0], 1)
        deviation = np.sqrt(np.diag(total) / max(total[0, 0], 1) - mean**2 + FLOOR**2)
        turn = np.diag(1 / deviation)
        turn[1:, 0], turn[0, 0] = -(mean / deviation)[1:], 1
        return turn, turn @ self.gram @ turn.T + self.ridge * np.eye(len(turn))

    def theta(self) -> Wide:
        """Coefficients of the reward above the pooled mean, of each choice."""
        turn, gram = self._standard()
        centred = (self.moments - self.pooled[0] * self.gram[:, 0]) @ turn.T
        solved: Wide = np.linalg.solve(gram, centred[:, :, None])[:, :, 0] @ turn
        return solved

    def act(self, features: Array) -> Choices:
        """The largest upper bound of every row."""
        if not self.counts.any():  # all are alike: let the envs differ
            return self.random.integers(self.seat.choices, size=len(features))
        x, (turn, gram) = _basis(features), self._standard()
        standard = x @ turn.T
        doubt = np.einsum("kni,ni->nk", standard @ np.linalg.inv(gram), standard)
        width = self.exploring * self.pooled[1] ** 0.5
        return (x @ self.theta().T + width * np.sqrt(np.maximum(doubt, 0))).argmax(1)

    def best(self, features: Array) -> Choices:
        """The largest prediction of every row."""
        return (_basis(features) @ self.theta().T).argmax(1)

    def chooser(self) -> Chooser:
        """A layer that bends, in which features are differences of two halves, and a linear one."""
        theta, size = self.theta().astype(np.float32), self.seat.inputs
        lines, bends = theta[:, 1 : 1 + size], theta[:, 1 + size :]
        every = np.eye(size, dtype=np.float32)
        first = np.vstack((every, -every, np.tile(every[LOAD], (len(BENDS), 1))))
        last, zeros = np.hstack((lines, -lines, bends)), np.zeros(2 * size, np.float32)
        return Network([first, last], [np.hstack((zeros, -BENDS)), theta[:, 0].copy()], "relu")


def _basis(features: Array) -> Wide:
    """A one, the features, and how far the load is beyond each bend."""
    bent = np.maximum(features[:, [LOAD]] - BENDS, 0)
    return np.hstack((np.ones((len(features), 1)), features, bent), dtype=np.float64)
