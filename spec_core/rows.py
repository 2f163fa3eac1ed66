"""What is found in rows of logits: by machine code on the CPU where there is numba, or by torch."""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from spec_core.sampling import Sampling
    from spec_core.tree import Nodes, Tree

# By tokens in common a past is recalled: EVEN of them would weigh as much as a model does; by SURE
# the past speaks alone and leaves the rest of TRUST to all others, in torch and where compiled.
EVEN, SURE, TRUST = 16, 12, 0.9

# Of one sequence: accepted nodes, their draft slots, tokens with the bonus, nodes drafted, and
# whether the logits met on the way were sound: no NaN, and no largest that is infinite. If not, the
# walk ends there, and there is no bonus.
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
        finite = values.isfinite()
        if noise is not None:
            if not tree.chain:
                index = tree.depths[:, :, None].expand(-1, -1, noise.shape[2])
                noise = noise.gather(1, index)
            picks = (sampling.shape(logits) + noise).argmax(-1)
        return [_walk(nodes) for nodes in tree.read(picks, finite)]

    def recalled(
        self, logits: Tensor, texts: Tensor, noted: list[int], drafted: Tensor, seen: Tensor
    ) -> Tensor:
        """Logits [B, W, V] mixed with what followed when texts [B, N] ended as the nodes do.

        noted: known tokens of each; drafted: [B, S] tokens by draft slot, of which nodes have seen
        [B, W, S] some; slot 0 is the root.
        """
        known = torch.tensor(noted, device=texts.device)[:, None, None]
        ends, place = _ends(texts, known, drafted, seen), torch.arange(1, texts.shape[1] + 1)
        front = texts.new_full((len(texts), SURE), -2)
        windows = torch.cat((front, texts[:, :-1]), 1).unfold(1, SURE, 1).flip(-1)  # [B, N, SURE]
        same = windows[:, None] == ends[:, :, None]
        place = place.to(texts.device) - 1
        lengths = same.byte().cumprod(-1, dtype=torch.uint8).sum(-1) * (place < known)  # [B, W, N]
        best = (lengths * len(place) + place).argmax(-1)  # the longest, the latest of equals
        length = lengths.gather(2, best[..., None])
        token = texts.gather(1, best)[..., None]
        weight = (length / EVEN).log() + logits.float().logsumexp(-1, keepdim=True)
        lifted = torch.logaddexp(logits.gather(2, token).float(), weight).to(logits.dtype)
        rest = math.log((1 - TRUST) / max(logits.shape[2] - 1, 1))
        sure = torch.full_like(logits, rest).scatter(2, token, math.log(TRUST))
        return torch.where(length == SURE, sure, logits.scatter(2, token, lifted))


def _ends(texts: Tensor, known: Tensor, drafted: Tensor, seen: Tensor) -> Tensor:
    """The last SURE tokens [B, W, SURE] of texts and the paths behind them, the last one first."""
    path = seen[..., 1:].long().cumsum(-1)  # places on each node's path
    back = torch.arange(SURE, device=texts.device)
    depth = path[..., -1:] if path.shape[-1] else torch.zeros_like(known).expand(*seen.shape[:2], 1)
    wanted = depth - back  # [B, W, SURE] on the path, from 1 on
    own = seen[..., None, 1:] & (path[..., None, :] == wanted[..., None])
    late = (own * drafted[:, None, None, 1:]).sum(-1)
    index = known - 1 + wanted
    within = index.clamp(0, texts.shape[1] - 1)
    early = texts[:, None].expand(-1, seen.shape[1], -1).gather(2, within)
    return torch.where(wanted > 0, late, torch.where(index >= 0, early, -1))


def _walk(nodes: Nodes) -> Walk:
    """The longest path from the root whose nodes are their parents' picks; extra: picks, sound."""
    edges = zip(nodes.parents, nodes.tokens, strict=True)
    child = {edge: node for node, edge in enumerate(edges) if node > 0}
    size = len(nodes.tokens)
    picks, finite = nodes.extra[:size], nodes.extra[size:]
    node, path, tokens = 0, list[int](), list[int]()
    while finite[node]:
        tokens.append(picks[node])
        if (node, picks[node]) not in child:
            break
        node = child[node, picks[node]]
        path.append(node)
    slots = [nodes.slots[node] for node in path]
    return path, slots, tokens, nodes.count - 1, bool(finite[node])


class Machine(Torch):
    """The same in one order of summation, which a chain in machine code has as well."""

    def __init__(self) -> None:
        from spec_core.models import ranks, recall, walk

        self.code, self.walks, self.past = ranks, walk, recall

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
        top_k = min(sampling.top_k, logits.shape[-1])  # a machine word, whatever was asked for
        found = self.walks.walk(
            _array(logits), _array(tokens), _array(parents), _array(slots),
            self.code.SILENCE if noise is None else _array(noise),
            (float(sampling.temperature), top_k, float(sampling.top_p)),
        ).tolist()  # fmt: skip
        return [_read(row, tree.nodes) for row in found]

    def recalled(
        self, logits: Tensor, texts: Tensor, noted: list[int], drafted: Tensor, seen: Tensor
    ) -> Tensor:
        mixed = logits.float().contiguous().numpy().copy()
        self.past.recalled(
            mixed, _array(texts), np.array(noted), _array(drafted), _array(seen)
        )  # fmt: skip
        return torch.from_numpy(mixed)


def _read(row: list[int], nodes: int) -> Walk:
    """Of what machine code tells of a sequence."""
    path, slots, tokens, accepted = 3, 3 + nodes, 3 + 2 * nodes, row[0]  # where they begin
    return (
        row[path : path + accepted], row[slots : slots + accepted],
        row[tokens : tokens + accepted + row[2]], row[1], row[2] == 1,
    )  # fmt: skip


def _array(numbers: Any) -> np.ndarray:
    array = numbers if isinstance(numbers, np.ndarray) else numbers.numpy()
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


@cache
def rows(cpu: bool) -> Torch:
    """What serves there."""
    return Machine() if cpu and find_spec("numba") else Torch()
