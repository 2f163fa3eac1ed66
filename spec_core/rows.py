"""What is found in rows of logits: by machine code on the CPU where there is numba, or by torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from spec_core.sampling import Sampling
    from spec_core.tree import Nodes, Tree

# Of one sequence: accepted nodes, their draft slots, tokens with the bonus, nodes drafted, and
# whether all logits were sound: no NaN, and no largest that is infinite.
Walk = tuple[list[int], list[int], list[int], int, bool]


class Torch:
    """On any device."""

    def best(
        self, logits: Tensor, temperature: float, noise: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor, Any]:
        """Tokens and scores [B, W, count], and logs [B, W, V] of softmax(logits / T + noise)."""
        logits = logits / temperature if temperature != 1 else logits
        logs = (logits if noise is None else logits + noise).log_softmax(-1)
        scores, tokens = logs.max(-1, keepdim=True) if count == 1 else logs.topk(count, -1)
        return tokens, scores, logs

    def walk(
        self, logits: Tensor, tree: Tree, noise: Tensor | None, sampling: Sampling
    ) -> list[Walk]:
        """Follow the largest of the shaped logits [B, N, V] + noise [B, depths, V] from the roots.

        The first of equals, where the logits' device has it so; noise is None at temperature 0.
        """
        values, picks = logits.max(-1)
        finite = values.isfinite().all(1, keepdim=True)
        if noise is not None:
            if not tree.chain:
                index = tree.depths[:, :, None].expand(-1, -1, noise.shape[2])
                noise = noise.gather(1, index)
            picks = (sampling.shape(logits) + noise).argmax(-1)
        return [_walk(nodes) for nodes in tree.read(picks, finite)]


def _walk(nodes: Nodes) -> Walk:
    """The longest path from the root whose every node is its parent's pick."""
    edges = zip(nodes.parents, nodes.tokens, strict=True)
    child = {edge: node for node, edge in enumerate(edges) if node > 0}
    node, path, tokens = 0, list[int](), nodes.extra[:1]
    while (node, nodes.extra[node]) in child:
        node = child[node, nodes.extra[node]]
        path.append(node)
        tokens.append(nodes.extra[node])
    slots = [nodes.slots[node] for node in path]
    return path, slots, tokens, nodes.count - 1, bool(nodes.extra[-1])


class Machine(Torch):
    """The same in one order of summation, which a chain in machine code has as well."""

    def __init__(self) -> None:
        from spec_core.models import ranks, walk

        self.code, self.walks = ranks, walk

    def best(
        self, logits: Tensor, temperature: float, noise: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor, Any]:
        sound = self.code.SILENCE if noise is None else _array(noise)
        tokens, scores, logs = self.code.ranked(_array(logits), temperature, sound, count)
        return torch.from_numpy(tokens), torch.from_numpy(scores), logs

    def walk(self, logits: Any, tree: Tree, noise: Any, sampling: Sampling) -> list[Walk]:
        """The same, also of arrays."""
        tokens, parents, slots = tree.arrays
        parents = self.walks.CHAIN if parents is None else parents
        found = self.walks.walk(
            _array(logits), _array(tokens), _array(parents), _array(slots),
            self.code.SILENCE if noise is None else _array(noise),
            (float(sampling.temperature), sampling.top_k, float(sampling.top_p)),
        ).tolist()  # fmt: skip
        return [_read(row, tree.nodes) for row in found]


def _read(row: list[int], nodes: int) -> Walk:
    """Of what machine code tells of a sequence."""
    accepted, drafted, finite, *places = row
    path, slots = places[:accepted], places[nodes : nodes + accepted]
    return path, slots, places[2 * nodes : 2 * nodes + accepted + 1], drafted, bool(finite)


def _array(numbers: Any) -> np.ndarray:
    array = numbers if isinstance(numbers, np.ndarray) else numbers.numpy()
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


@cache
def rows(cpu: bool) -> Torch:
    """What serves there."""
    return Machine() if cpu and find_spec("numba") else Torch()
