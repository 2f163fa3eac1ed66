"""A Llama-family model whose forward is machine code: packs the weights, hands the inputs over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_core.doubt import Doubt, Halt
from spec_core.judge import NOBODY
from spec_core.models.base import ModelError, View
from spec_core.models.beam import beam, harvest
from spec_core.models.cache import SlotCache
from spec_core.models.chain import branch, chain, feed
from spec_core.models.chains import chains
from spec_core.models.fast import Layer, Reader, Shape, check, rotations, sliding_windows
from spec_core.models.forward import Sizes, forward, padded
from spec_core.models.linked import ready
from spec_core.models.products import panels
from spec_core.models.ranks import SILENCE
from spec_core.models.tiles import HALF
from spec_core.models.weights import Weights
from spec_core.recall import Past, Pasts
from spec_core.tensors import zeros

Arrays = tuple[np.ndarray, ...]


def gated(gate_up: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Gate and up each padded to whole panels, so that neither shares one with the other."""
    half = len(gate_up) // 2

    def apart(tensor: Tensor) -> Tensor:
        room = tensor.new_zeros(padded(half) - half, *tensor.shape[1:])
        return torch.cat((tensor[:half], room, tensor[half:], room))

    return apart(gate_up), None if bias is None else apart(bias)


class _Packer:
    """Blocks, then the head, into one array: held twice is at most a block."""

    def __init__(self, sizes: Sizes, layers: int) -> None:
        attended = sizes.heads * sizes.width
        block = [
            (sizes.qkv, sizes.hidden), (sizes.back, attended), (2 * sizes.half, sizes.hidden),
            (sizes.back, sizes.inner),
        ]  # fmt: skip
        lengths = [outputs * (1 + inputs) for outputs, inputs in block]
        first, each = np.cumsum([0, *lengths[:-1]]), sum(lengths)
        self.starts = first + each * np.arange(layers + 1)[:, None]
        count = int(self.starts[-1, 0]) + sizes.vocab * (1 + sizes.hidden)
        self.flat = zeros((count,), torch.empty(0))
        self.norms: list[Tensor] = []

    def block(self, index: int, layer: Layer) -> None:
        """One block's matrices and head norms."""
        parts = (layer.qkv, layer.output, gated(*layer.gate_up), layer.down)
        for start, part in zip(self.starts[index], parts, strict=True):
            self.put(start, part)
        if layer.q_norm is not None and layer.k_norm is not None:
            self.norms.append(torch.stack((layer.q_norm, layer.k_norm)))

    def put(self, start: int, part: tuple[Tensor, Tensor | None]) -> None:
        """A matrix and its biases, from `start` on."""
        weight, bias = part
        packed = torch.from_numpy(panels(weight.numpy(), None if bias is None else bias.numpy()))
        self.flat[start : start + len(packed)] = packed


class CompiledModel:
    """A Llama-family model in fp32 on one CPU core."""

    dtype, device = torch.float32, torch.device("cpu")
    packs = True  # padding is not computed
    chunk = 128  # tokens of a prefill whose numbers stay near

    def __init__(self, config: Any, weights: Weights) -> None:
        check(config)
        ready()
        self.shape = s = Shape.of(config)
        if s.hidden % HALF or s.head_dim % HALF:
            raise ModelError(f"widths {s.hidden} and {s.head_dim} are not multiples of {HALF}")
        self.config, self.vocab_size, self.max_context = config, s.vocab, s.context
        reader = Reader(weights, s, make=lambda weight, bias: (weight, bias))
        embedding = weights.take("model.embed_tokens.weight", s.vocab, s.hidden)
        windows = sliding_windows(config)
        self.sizes = Sizes(
            s.hidden, s.heads, s.key_heads, s.head_dim,
            padded((s.heads + 2 * s.key_heads) * s.head_dim), s.intermediate,
            padded(s.intermediate), padded(s.hidden), padded(s.vocab), s.eps,
        )  # fmt: skip
        self.widths = tuple(self.sizes)
        packer = _Packer(self.sizes, s.layers)
        for index, window in enumerate(windows):
            packer.block(index, reader.layer(index, window))
        packer.put(packer.starts[-1, 0], reader.head(embedding, config.tie_word_embeddings)[0])
        norms = torch.stack(packer.norms) if packer.norms else torch.empty(s.layers, 2, 0)
        turns = torch.view_as_real(rotations(config, s, self.device)).flatten(1)
        self.arrays = (
            embedding.contiguous().numpy(), turns.contiguous().numpy(), packer.flat.numpy(),
            packer.starts, np.array([window or 0 for window in windows]), norms.numpy(),
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path, config: Any) -> CompiledModel:
        """Read a checkpoint folder."""
        return cls(config, Weights(path, cls.dtype, cls.device))

    def new_cache(self, batch: int, slots: int) -> SlotCache:
        """Room for `slots` tokens in each of `batch` rows."""
        s = self.shape
        shape = (s.layers, batch, slots, 2 * s.key_heads, s.head_dim)
        return SlotCache.empty(shape, torch.empty(0, dtype=self.dtype))

    def forward(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, view: View, cache: SlotCache,
        keep: int,
    ) -> Tensor:  # fmt: skip
        """Logits [B, keep, V] of the last `keep` queries; the queries' KV goes to `slots`."""
        batch, queries = tokens.shape
        inputs, (placed, place) = (_array(tokens), _array(positions), _array(slots)), cache.place
        logits = forward(
            inputs, _array(view.prefix), _array(view.ancestors), placed,
            (view.span, min(keep, queries), *place), self.arrays, self.widths,
        )  # fmt: skip
        logits = logits.reshape(batch, -1, self.sizes.vocab)[..., : self.vocab_size]
        return torch.from_numpy(logits)

    def straight(self, tokens: Tensor, first: int, cache: SlotCache, keep: int) -> Tensor:
        """`forward` of tokens [1, Q] that follow each other in one text, in slots from `first`."""
        return torch.from_numpy(self.feed(tokens.numpy(), first, cache, keep))

    def feed(self, tokens: np.ndarray, first: int, cache: SlotCache, keep: int) -> np.ndarray:
        """The same from array to array."""
        placed, place = cache.place
        logits = feed(
            tokens, first, min(keep, tokens.shape[1]), placed, place, self.arrays, self.widths
        )
        return logits[None, :, : self.vocab_size]

    def branch(
        self, numbers: np.ndarray, seen: np.ndarray, first: int, cache: SlotCache
    ) -> np.ndarray:
        """The same of a tree's nodes, as `tree.Grown` has them; the root goes to `first`."""
        placed, place = cache.place
        logits = branch(numbers, seen, first, placed, place, self.arrays, self.widths)
        return logits[None, :, : self.vocab_size]

    def chain(
        self, tokens: list[int], first: int, noise: np.ndarray | None, levels: int,
        ranking: tuple[float, float, int], halt: Halt, past: Past, cache: SlotCache,
    ) -> tuple[list[int], list[float], np.ndarray, int]:  # fmt: skip
        """Draft alone behind a text's last tokens, in slots from `first` on.

        The best tokens, path scores, the last logs [1, 1, V] and how many tokens were fed, up to so
        many levels or to a halt;
        ranking: temperature, the score and the levels so far; noise: [1, levels, V]; past: what may
        be recalled.
        """
        placed, place = cache.place
        found, scores, logs, fed = chain(
            np.array([tokens]), first, SILENCE if noise is None else noise, levels, ranking,
            tuple(map(float, halt[:4])), halt.judge() if halt.judge else NOBODY, past, placed,
            place, self.arrays, self.widths,
        )  # fmt: skip
        return found.tolist(), scores.tolist(), logs, fed

    def chains(
        self, tokens: list[list[int]], lengths: list[int], noise: Any, temperature: float,
        growth: tuple[int, bool, np.ndarray, np.ndarray], past: Pasts, cache: SlotCache,
    ) -> Arrays:  # fmt: skip
        """Draft alone behind several texts' last tokens, as `models.chains` has it."""
        placed, place = cache.place
        sound = SILENCE if noise is None else _array(torch.as_tensor(noise))
        return chains(
            np.array(tokens), np.array(lengths), sound, temperature, growth, past, placed, place,
            self.arrays, self.widths,
        )  # fmt: skip

    def beam(
        self, tokens: list[int], pool: Arrays, rounds: Arrays, noise: Any,
        start: tuple[int, int, bool, int], limits: tuple[float, float, float, float],
        doubt: Doubt | None, past: Past, cache: SlotCache,
    ) -> tuple[int, np.ndarray, Arrays]:  # fmt: skip
        """Draft a tree alone behind a text's last tokens, as `models.beam` has it."""
        placed, place = cache.place
        judge = doubt.judge() if doubt is not None and doubt.judge else NOBODY
        return beam(
            np.array(tokens), pool, rounds, SILENCE if noise is None else np.asarray(noise), start,
            limits, judge, past[:2], placed, place, self.arrays, self.widths,
        )  # fmt: skip

    harvest = staticmethod(harvest)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy())
