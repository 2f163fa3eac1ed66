"""Whether a model scores a tree as it scores the tree's paths; knows nothing of its inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spec_core.models.base import ModelError, View, first_line

if TYPE_CHECKING:
    from spec_core.models.hf import HFModel

PROBE_PARENTS = (0, 0, 0, 1, 1, 2, 3, 5)  # the root is its own parent
LONGEST_PROBE = 256  # a larger sliding window is not reached by the probe
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 0.15}


def probe(model: HFModel) -> None:
    """Score a random tree in two rows of one batch; refuse if it differs from plain decoding."""
    try:
        error = _tree_error(model)
    except Exception as problem:
        raise ModelError(f"{model.name}: cannot score a tree: {first_line(problem)}") from problem
    if not error <= TOLERANCE.get(model.dtype, 0.15):
        text = f"tree attention differs from plain decoding by {error:.2g}"
        raise ModelError(f"{model.name}: {text} (it ignores the mask, the positions or the cache)")


def _tree_error(model: HFModel) -> float:
    """Largest error of a path's logits, relative to the spread of the right ones."""
    window = getattr(model.module.config.get_text_config(), "sliding_window", None) or 0
    longest = window + 4 if 8 < window <= LONGEST_PROBE else 12
    ancestors = torch.eye(len(PROBE_PARENTS), dtype=torch.bool)
    for node, parent in enumerate(PROBE_PARENTS):
        ancestors[node] |= ancestors[parent]
    shape, random = (2, longest + len(PROBE_PARENTS)), torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocab_size, shape, generator=random).to(model.device)
    lengths = torch.tensor([longest, longest - 3], device=model.device)  # row 1 is padded
    got, worst = _tree_logits(model, tokens, lengths, ancestors.to(model.device)), 0.0
    for row, length in enumerate(lengths.tolist()):
        for leaf in set(range(len(PROBE_PARENTS))) - set(PROBE_PARENTS):
            path = ancestors[leaf].nonzero().flatten().to(model.device)
            sequence = torch.cat([tokens[row, :length], tokens[row, longest:][path]])
            right = model.plain(sequence[None])[0, -len(path) :].float()
            error = (got[row, path] - right).pow(2).mean(-1).sqrt() / right.std(-1)
            worst = max(worst, error.nan_to_num(torch.inf).max().item())
    return worst


def _tree_logits(model: HFModel, tokens: Tensor, prefix: Tensor, ancestors: Tensor) -> Tensor:
    """Logits [2, N, V] of a tree of the last N tokens under each row's prefix."""
    nodes, total = len(ancestors), tokens.shape[1]
    cache, slots = model.new_cache(2, total), torch.arange(total, device=model.device)
    longest, before = total - nodes, slots[: total - nodes].expand(2, -1)
    causal = torch.ones(1, longest, longest, dtype=torch.bool, device=model.device).tril()
    view = View(torch.zeros_like(prefix), causal, longest)
    model.forward(tokens[:, :longest], before, before, view, cache, 1)
    positions = prefix[:, None] + ancestors.sum(-1) - 1
    view, after = View(prefix, ancestors[None], total), prefix[:, None] + slots[:nodes]
    return model.forward(tokens[:, longest:], positions, after, view, cache, nodes).float()
