"""A lean Llama-family forward (Llama, Mistral, Qwen2, Qwen3) over slots; knows no trees.

Queries and keys are stored with rotary pairs side by side, so a rotation is one complex product;
dot products do not notice. In fp32 the norms' weights are folded into the matrices that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_core.models.base import ModelError, View
from spec_core.models.cache import SlotCache
from spec_core.models.linear import linear
from spec_core.models.weights import Weights

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def check(config: Any) -> None:
    """Refuse what is not of the family."""
    if config.model_type not in FAMILIES:
        raise ModelError(f"{config.model_type!r} is not of the fast backend's families {FAMILIES}")
    if config.hidden_act != "silu":
        raise ModelError(f"activation {config.hidden_act!r} is not served by the fast backend")


@dataclass(frozen=True)
class Shape:
    """The numbers of a Llama-family model."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    eps: float

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read from a transformers config."""
        heads = config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=heads,
            key_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            vocab=config.vocab_size,
            context=config.max_position_embeddings,
            eps=config.rms_norm_eps,
        )


@dataclass(frozen=True)
class Layer:
    """One block's matrices; norms are None where they are folded into the matrix that follows."""

    qkv: Any  # a Linear, or what the reader's maker makes
    output: Any
    gate_up: Any
    down: Any
    window: int | None
    norm: Tensor | None = None
    mlp_norm: Tensor | None = None
    q_norm: Tensor | None = None  # [H * D] tiled over heads
    k_norm: Tensor | None = None


def _pairs(head_dim: int) -> Tensor:
    """The order that puts each rotary pair (i, i + D/2) side by side."""
    return torch.arange(head_dim).view(2, -1).t().reshape(-1)


def rotations(config: Any, shape: Shape, device: torch.device) -> Tensor:
    """e^(i position frequency) for every position, [context, D/2] complex."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = config.rope_parameters
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        exponent = torch.arange(0, shape.head_dim, 2, dtype=torch.float) / shape.head_dim
        frequencies, scale = 1.0 / (parameters["rope_theta"] ** exponent), 1.0
    elif kind in ("linear", "llama3", "yarn"):
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config)
    else:
        raise ModelError(f"rope type {kind!r} is not served by the fast backend")
    angles = torch.arange(shape.context).float()[:, None] * frequencies.float()
    return torch.polar(torch.full_like(angles, scale), angles).to(device)


def sliding_windows(config: Any) -> list[int | None]:
    """The sliding window of every layer, None where it sees everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return [window] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


class Reader:
    """Checkpoint tensors to fused layers."""

    def __init__(self, weights: Weights, shape: Shape, make: Callable = linear) -> None:
        self.weights, self.shape, self.make = weights, shape, make
        self.fold = weights.dtype == torch.float32
        self.pairs = _pairs(shape.head_dim).to(weights.device)

    def linear(self, names: list[tuple[str, int]], width: int, norm: Tensor | None = None) -> Any:
        """Several projections stacked into one, the norm before them folded in."""
        matrices = [self._rotary(n, self.weights.take(f"{n}.weight", o, width)) for n, o in names]
        biases = [self.weights.optional(f"{n}.bias", o) for n, o in names]
        bias = None
        if any(b is not None for b in biases):
            parts = [
                torch.zeros_like(m[:, 0]) if b is None else self._rotary(n, b)
                for (n, _), m, b in zip(names, matrices, biases, strict=True)
            ]
            bias = torch.cat(parts)
        matrix = torch.cat(matrices)
        return self.make(matrix if norm is None else self.folded(matrix, norm), bias)

    def folded(self, matrix: Tensor, norm: Tensor) -> Tensor:
        """The matrix behind a norm that divides by |x| alone: weight and sqrt(width) moved here."""
        return matrix * (norm * self.shape.hidden**0.5)

    def _rotary(self, name: str, tensor: Tensor) -> Tensor:
        """Rows of query and key projections, rotary pairs side by side."""
        if not name.endswith(("q_proj", "k_proj")):
            return tensor
        heads = tensor.unflatten(0, (-1, self.shape.head_dim))
        return heads[:, self.pairs].flatten(0, 1)

    def layer(self, index: int, window: int | None) -> Layer:
        """One block."""
        s, name = self.shape, f"model.layers.{index}"
        norm = self.weights.take(f"{name}.input_layernorm.weight", s.hidden)
        mlp_norm = self.weights.take(f"{name}.post_attention_layernorm.weight", s.hidden)
        attention, mlp = f"{name}.self_attn", f"{name}.mlp"
        queries, keys = s.heads * s.head_dim, s.key_heads * s.head_dim
        projections = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)]
        parts = [(f"{attention}.{n}", o) for n, o in projections]
        gates = [(f"{mlp}.gate_proj", s.intermediate), (f"{mlp}.up_proj", s.intermediate)]
        return Layer(
            qkv=self.linear(parts, s.hidden, norm if self.fold else None),
            output=self.linear([(f"{attention}.o_proj", s.hidden)], queries),
            gate_up=self.linear(gates, s.hidden, mlp_norm if self.fold else None),
            down=self.linear([(f"{mlp}.down_proj", s.hidden)], s.intermediate),
            window=window,
            norm=None if self.fold else norm,
            mlp_norm=None if self.fold else mlp_norm,
            q_norm=self._head_norm(f"{attention}.q_norm.weight"),
            k_norm=self._head_norm(f"{attention}.k_norm.weight"),
        )

    def head(self, embedding: Tensor, tied: bool) -> tuple[Any, Tensor | None]:
        """The matrix to the logits, and the norm before it where it is not folded in."""
        s = self.shape
        norm = self.weights.take("model.norm.weight", s.hidden)
        head = embedding if tied else self.weights.take("lm_head.weight", s.vocab, s.hidden)
        return self.make(self.folded(head, norm) if self.fold else head, None), (
            None if self.fold else norm
        )

    def _head_norm(self, name: str) -> Tensor | None:
        norm = self.weights.optional(name, self.shape.head_dim)
        return None if norm is None else norm[self.pairs]


class FastModel:
    """A Llama-family model that scores trees over a slot cache."""

    def __init__(self, config: Any, weights: Weights) -> None:
        check(config)
        self.shape = s = Shape.of(config)
        self.config, self.device, self.dtype = config, weights.device, weights.dtype
        self.vocab_size, self.max_context = s.vocab, s.context
        self.rotations = rotations(config, s, self.device)
        reader = Reader(weights, s)
        self.embedding = weights.take("model.embed_tokens.weight", s.vocab, s.hidden)
        windows = sliding_windows(config)
        self.layers = [reader.layer(i, windows[i]) for i in range(s.layers)]
        self.windows = {w for w in windows if w is not None}
        self.head, self.norm = reader.head(self.embedding, config.tie_word_embeddings)
        self.floor = torch.tensor((s.eps * s.hidden) ** 0.5, device=self.device)

    @classmethod
    def load(cls, path: Path, config: Any, dtype: torch.dtype, device: torch.device) -> FastModel:
        """Read a checkpoint folder."""
        return cls(config, Weights(path, dtype, device))

    def new_cache(self, batch: int, slots: int) -> SlotCache:
        """Room for `slots` tokens in each of `batch` rows."""
        s = self.shape
        return SlotCache.empty(
            (s.layers, batch, slots, 2 * s.key_heads, s.head_dim), self.embedding
        )

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        slots: Tensor,
        view: View,
        cache: SlotCache,
        keep: int,
    ) -> Tensor:
        """Logits [B, keep, V] of the last `keep` queries; the queries' KV goes to `slots`."""
        batch, queries = tokens.shape
        row = torch.arange(batch, device=slots.device)[:, None] * cache.slots
        flat = (slots + row).view(-1) if batch > 1 else slots.view(-1)
        rotation = self.rotations[positions.view(-1)][:, None]  # [B * Q, 1, D/2]
        masks = self._masks(positions, flat, view, cache)
        x = F.embedding(tokens.reshape(-1).clamp(min=0), self.embedding)  # [B * Q, hidden]
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(self._normal(x, layer.norm))
            kept = (index + 1 == len(self.layers) and keep < queries) and keep
            mixed = self._attend(qkv, index, flat, rotation, masks[layer.window], view.span, cache)
            if kept:  # the last block's other rows are needed by nobody
                x = x.view(batch, queries, -1)[:, -keep:].reshape(batch * keep, -1)
                mixed = mixed.view(batch, queries, -1)[:, -keep:].reshape(batch * keep, -1)
            x = x + layer.output(mixed)
            gate, up = layer.gate_up(self._normal(x, layer.mlp_norm)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        return self.head(self._normal(x, self.norm)).view(batch, min(keep, queries), -1)

    def _normal(self, x: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:  # folded: |x| / sqrt(width) is the root mean square
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return x / torch.hypot(length, self.floor)
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)

    def _masks(self, positions: Tensor, flat: Tensor, view: View, cache: SlotCache) -> dict:
        """Additive masks [B, 1, groups * Q, span] by window; None where all is visible."""
        if view.full and not self.windows:
            return {None: None}
        seen, groups = view.mask(), self.shape.heads // self.shape.key_heads
        masks: dict[int | None, Tensor | None] = {None: self._additive(seen, groups)}
        if self.windows:
            cache.positions.view(-1).index_copy_(0, flat, positions.view(-1))
            distance = positions[:, :, None] - cache.positions[:, None, : view.span]
            masks |= {w: self._additive(seen & (distance < w), groups) for w in self.windows}
        return masks

    def _additive(self, seen: Tensor, groups: int) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return mask.masked_fill_(~seen, -torch.inf).repeat(1, groups, 1)[:, None]

    def _attend(
        self, qkv: Tensor, index: int, flat: Tensor, rotation: Tensor, mask: Tensor | None,
        span: int, cache: SlotCache,
    ) -> Tensor:  # fmt: skip
        """Rotate, store, attend; queries of a key head are packed as rows: no KV is repeated."""
        s, layer = self.shape, self.layers[index]
        total = qkv.shape[0]
        qkv = qkv.view(total, s.heads + 2 * s.key_heads, s.head_dim)
        if layer.q_norm is not None:
            q = F.rms_norm(qkv[:, : s.heads], (s.head_dim,), layer.q_norm, s.eps)
            k = F.rms_norm(qkv[:, s.heads : -s.key_heads], (s.head_dim,), layer.k_norm, s.eps)
            qkv = torch.cat((q, k, qkv[:, -s.key_heads :]), 1)
        _rotate(qkv[:, : -s.key_heads], rotation)
        cache.write(index, flat, qkv[:, s.heads :])
        batch, groups = cache.batch, s.heads // s.key_heads
        q = qkv[:, : s.heads].view(batch, -1, s.key_heads, groups, s.head_dim)
        queries = q.shape[1]
        q = q.permute(0, 2, 3, 1, 4).reshape(batch, s.key_heads, groups * queries, s.head_dim)
        k, v = cache.read(index, span)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = out.view(batch, s.key_heads, groups, queries, s.head_dim).permute(0, 3, 1, 2, 4)
        return out.reshape(total, s.heads * s.head_dim)


def _rotate(x: Tensor, rotation: Tensor) -> None:
    """Turn the rotary pairs of x [N, heads, D] in place."""
    if x.dtype == torch.float32:
        torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(rotation)
        return
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    x.copy_(torch.view_as_real(pairs * rotation).flatten(-2))
