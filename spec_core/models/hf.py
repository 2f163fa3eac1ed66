"""Any decoder-only transformers model behind `Model`; knows no tree, only the View it is given."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache as LayeredCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from spec_core.models.base import Cache, ModelError, View, first_line
from spec_core.models.probe import probe
from spec_core.tensors import tensor

ATTENTION = "spec_core_tree"
FALLBACK_CONTEXT = 2048
LAYER_TYPES = {"full_attention", "sliding_attention", "sparse", "dense", None}


class SlotCache:
    """Keys and values of a batch in slots; one buffer [N, B, H, S, D] per shape."""

    def __init__(self, buffers: list[Tensor], positions: Tensor, places: list[tuple[int, int]]):
        self.buffers, self.positions = buffers, positions  # positions: [B, S]
        self.places = places  # (buffer, index) of layer 0's keys, its values, layer 1's..

    def rows(self, start: int, stop: int) -> SlotCache:
        """A view of some of the batch's rows, sharing memory."""
        buffers = [buffer[:, start:stop] for buffer in self.buffers]
        return SlotCache(buffers, self.positions[start:stop], self.places)

    def move(self, row: int, source: list[int], target: list[int]) -> None:
        """Copy slots to others of one row, which are not behind them."""
        old, new = tensor([source, target], self.positions.device)
        for kept, dim in self._row(row):
            kept.index_copy_(dim, new, kept.index_select(dim, old))

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row over another."""
        for (read, dim), (write, _) in zip(self._row(source), self._row(target), strict=True):
            write.narrow(dim, 0, length).copy_(read.narrow(dim, 0, length))

    def _row(self, row: int) -> list[tuple[Tensor, int]]:
        """Everything one row owns, each with the dimension that counts its slots."""
        return [*((buffer[:, row], 2) for buffer in self.buffers), (self.positions[row], 0)]


class _Step:
    """What the layers of one forward share: where to write, what to see."""

    def __init__(self, slots: Tensor, positions: Tensor, view: View, cache: SlotCache):
        cache.positions.scatter_(1, slots, positions)
        self.slots, self.span, self.seen = slots, view.span, view.mask()  # seen: [B, Q, span]
        self.distance = positions[:, :, None] - cache.positions[:, None, : view.span]
        self.masks: dict[tuple[int | None, int], Tensor] = {}

    def mask(self, window: int | None, groups: int) -> Tensor:
        """Mask [B, 1, groups * Q, span] of queries packed by the key head they read."""
        if (window, groups) not in self.masks:
            seen = self.seen if window is None else self.seen & (self.distance < window)
            self.masks[window, groups] = seen.repeat(1, groups, 1)[:, None]
        return self.masks[window, groups]


class _SlotLayer(DynamicLayer):
    """One layer's keys and values as transformers sees them during one forward."""

    def __init__(self, keys: Tensor, values: Tensor, step: _Step):
        super().__init__()
        self.keys, self.values, self.step, self.is_initialized = keys, values, step, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            kept.scatter_(2, self.step.slots[:, None, :, None].expand_as(new), new.to(kept.dtype))
        return self.keys[:, :, : self.step.span], self.values[:, :, : self.step.span]

    def get_seq_length(self) -> int:
        return 0  # positions and masks are always passed explicitly


def _tree_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention function: query [B, H, Q, D] -> output [B, Q, H, D]."""
    _check_layer(module, options)
    softcap, sinks = options.get("softcap"), options.get("s_aux")
    (batch, heads, queries, width), key_heads = query.shape, key.shape[1]
    groups = heads // key_heads
    query = query.reshape(batch, key_heads, groups * queries, width)
    mask = options["tree_step"].mask(options.get("sliding_window"), groups)
    scale = options.get("scaling") or width**-0.5
    if softcap is None and sinks is None:
        out = functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    else:
        out = _spelled_out(query * scale, key, value, mask, softcap, sinks)
    return out.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous(), None


def _check_layer(module: Any, options: dict[str, Any]) -> None:
    """Refuse a layer that keeps to itself what its attention needs."""
    types: Any = getattr(getattr(module, "config", None), "layer_types", None)
    slides = bool(types) and types[module.layer_idx] == "sliding_attention"
    sinks = getattr(module, "sinks", None) is not None
    needed = {"tree_step": True, "sliding_window": slides, "s_aux": sinks}
    lost = [name for name, need in needed.items() if need and options.get(name) is None]
    if lost or options.get("position_bias") is not None:
        raise ModelError(f"its layers do not pass on {lost}" if lost else "it biases positions")


def _spelled_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, softcap: Any, sinks: Any
) -> Tensor:
    """Attention with what the fused kernel lacks."""
    scores = query @ key.transpose(2, 3)
    scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # -inf would give NaN rows
    if sinks is not None:  # [H] -> [B, Hkv, groups * Q, 1]
        queries = scores.shape[1] * scores.shape[2] // len(sinks)
        sinks = sinks.repeat_interleave(queries).view(1, *scores.shape[1:3], 1)
        scores = torch.cat([scores, sinks.to(scores).expand(len(scores), -1, -1, -1)], dim=-1)
    return scores.softmax(-1, dtype=torch.float32).to(value)[..., : key.shape[2]] @ value


AttentionInterface.register(ATTENTION, _tree_attention)


class HFModel:
    """A loaded transformers model as `Model`; the module itself stays as its owner left it."""

    def __init__(self, module: PreTrainedModel, check: bool = True):
        """Refuses what cannot score trees; `check=False` skips the probe, not the rest."""
        self.module, self.name = module, type(module).__name__
        _refuse_by_config(module, self.name)
        self.device, self.dtype = module.device, module.dtype
        self.max_context = _max_context(module.config.get_text_config())
        owners = [part for part in module.modules() if hasattr(part, "config")]
        configs = {id(owner.config): owner.config for owner in owners}
        self._configs = [x for x in configs.values() if hasattr(x, "_attn_implementation_internal")]
        self._cuts = "logits_to_keep" in inspect.signature(module.forward).parameters
        self._kinds, self.vocab_size = self._trace()
        if check:
            probe(self)

    def new_cache(self, batch: int, slots: int) -> SlotCache:
        """Room for `slots` tokens in each of `batch` rows."""
        unique, buffers = list(dict.fromkeys(self._kinds)), []
        places = [(unique.index(k), self._kinds[:i].count(k)) for i, k in enumerate(self._kinds)]
        for heads, width, dtype in unique:
            shape = (self._kinds.count((heads, width, dtype)), batch, heads, slots, width)
            buffers.append(torch.zeros(shape, dtype=dtype, device=self.device))
        positions = torch.zeros(batch, slots, dtype=torch.long, device=self.device)
        return SlotCache(buffers, positions, places)

    @torch.no_grad()
    def forward(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, view: View, cache: Cache, keep: int
    ) -> Tensor:
        """Logits [B, keep, V] of the last `keep` queries; writes the queries' KV to `slots`."""
        assert isinstance(cache, SlotCache)
        step = _Step(slots, positions, view, cache)
        kept = [cache.buffers[buffer][index] for buffer, index in cache.places]
        layers = [_SlotLayer(*pair, step) for pair in zip(kept[::2], kept[1::2], strict=True)]
        # The 4-D mask keeps models from building, or warning about, one of their own.
        extra: dict[str, Any] = {"position_ids": positions, "attention_mask": step.mask(None, 1)}
        extra |= {"past_key_values": LayeredCache(layers), "tree_step": step}
        extra |= {"logits_to_keep": max(keep, 1)} if self._cuts else {}  # 0 would mean all
        logits = self._run(ATTENTION, tokens.clamp(min=0), extra).logits
        return logits[:, logits.shape[1] - keep :]

    @torch.no_grad()
    def plain(self, tokens: Tensor) -> Tensor:
        """Logits [B, Q, V] of whole sequences by the module's own attention, without slots."""
        return self._run("eager", tokens, {"attention_mask": torch.ones_like(tokens)}).logits

    def _run(self, attention: str, tokens: Tensor, options: dict[str, Any]) -> Any:
        """Run the module with this attention, then give it back its own."""
        own = [config._attn_implementation_internal for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation_internal = attention
            return self.module(input_ids=tokens, use_cache=True, return_dict=True, **options)
        finally:
            for config, before in zip(self._configs, own, strict=True):
                config._attn_implementation_internal = before

    @torch.no_grad()
    def _trace(self) -> tuple[list[tuple[int, int, torch.dtype]], int]:
        """(heads, width, dtype) of each layer's keys and values, and the vocabulary."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        try:
            out = self._run("eager", token, {"attention_mask": torch.ones_like(token)})
        except Exception as error:
            raise ModelError(f"{self.name}: cannot run it: {first_line(error)}") from error
        layers = getattr(out.get("past_key_values"), "layers", None) or [None]
        plain = (DynamicLayer, DynamicSlidingWindowLayer)
        if any(type(layer) not in plain or layer.keys is None for layer in layers):
            raise ModelError(f"{self.name}: it does not cache keys and values, and only those")
        kept = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return [(x.shape[1], x.shape[3], x.dtype) for x in kept], out.logits.shape[-1]


def load_hf(
    path: str | Path,
    device: torch.device | str,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> HFModel:
    """Load safetensors weights from a folder or the hub and probe the model; never unpickles."""
    options = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype}
    options["trust_remote_code"] = trust_remote_code
    try:
        module, report = AutoModelForCausalLM.from_pretrained(path, **options)
        module = module.to(device).eval()
    except Exception as error:
        raise ModelError(f"{path}: cannot load it: {first_line(error)}") from error
    if report["missing_keys"]:  # transformers fills them at random
        raise ModelError(f"{path}: weights are missing: {sorted(report['missing_keys'])[:3]}")
    return HFModel(module)


def _refuse_by_config(module: PreTrainedModel, name: str) -> None:
    """Refuse what is known not to score trees without running it."""
    config = module.config.get_text_config()
    odd = sorted({*(getattr(config, "layer_types", None) or ())} - LAYER_TYPES)
    own = not getattr(module, "_supports_attention_backend", False)
    problems = {
        "it is an encoder-decoder": getattr(module.config, "is_encoder_decoder", False),
        "it keeps recurrent state, which has no tree": getattr(module, "_is_stateful", False),
        f"it has layers of the kinds {odd}": odd,
        "its own attention code would ignore the tree's mask (it has no attention backend)": own,
        "its rotary frequencies depend on the batch (rope_type dynamic)": _ropes(config, "dynamic"),
        "it is in training mode; call .eval() first": module.training,
        "it is spread over several devices": len({p.device for p in module.parameters()}) > 1,
    }
    for problem, found in problems.items():
        if found:
            raise ModelError(f"{name}: {problem}")


def _ropes(config: Any, kind: str) -> list[dict[str, Any]]:
    """The rotary parameters of this kind, over all layer types."""
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, dict)] or [ropes]
    return [rope for rope in nested if kind in str(rope.get("rope_type"))]


def _max_context(config: Any) -> int:
    """Longest sequence the positions reach without a change of the rotary frequencies."""
    limit = getattr(config, "max_position_embeddings", None) or FALLBACK_CONTEXT
    limits = (x.get("original_max_position_embeddings") for x in _ropes(config, "longrope"))
    return min([limit, *(other for other in limits if other)])
