"""`model.generate(custom_generate=...)` of transformers, decoded speculatively; the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    EosTokenCriteria,
    LogitNormalization,
    MaxLengthCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from spec_core.decoder import SpeculativeDecoder
from spec_core.drafters.base import Drafter
from spec_core.drafters.lm import ModelDrafter
from spec_core.models.hf import HFModel
from spec_core.pair import Pair, chosen_recall
from spec_core.policy import Policy
from spec_core.session import Outcome

WARPERS = [TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, LogitNormalization]
HARMLESS = {"attention_mask", "position_ids", "use_cache", "logits_to_keep", "cache_position"}


def custom_generate(
    draft: nn.Module | Drafter, policy: Policy | None = None, seed: int | None = None,
    streamer: Any = None,
) -> CustomGenerate:  # fmt: skip
    """What to give to `model.generate(custom_generate=...)`.

    draft: a transformers model of the same vocabulary, or any Drafter. Greedy calls return what
    plain `generate` returns; sampled ones follow its distribution. seed: of sampling; without one
    it is drawn from torch's generator. streamer: give it here and not to `generate`, which does
    not hand it on to a callable (transformers 5.23).
    """
    return CustomGenerate(draft, policy, seed, streamer)


class CustomGenerate:
    """Speculative decoding in the place of transformers' own decoding loop."""

    def __init__(
        self, draft: nn.Module | Drafter, policy: Policy | None, seed: int | None, streamer: Any
    ) -> None:  # fmt: skip
        self.draft, self.policy, self.seed, self.streamer = draft, policy, seed, streamer
        self._wrapped: dict[int, HFModel] = {}

    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any,
        generation_config: Any, synced_gpus: bool = False, streamer: Any = None,
        **model_kwargs: Any,
    ) -> Tensor:  # fmt: skip
        """Called by `generate` after it has prepared everything."""
        _refuse(generation_config, synced_gpus, model_kwargs)
        prompts = _prompts(input_ids, model_kwargs)
        new, eos = _limits(stopping_criteria, input_ids.shape[1])
        sampling = _sampling(logits_processor) if generation_config.do_sample else {}
        _plain_only(logits_processor)
        pair = Pair(self._model(model), self._drafter(model), eos=eos)
        _fits(pair, prompts, new)
        streamer = self._streamer(streamer, input_ids)
        seed = int(torch.randint(2**62, ())) if self.seed is None and sampling else self.seed or 0
        decoder = SpeculativeDecoder(pair, self.policy)
        options: dict[str, Any] = {"max_new_tokens": new, "seed": seed, **sampling}
        made = decoder.generate(prompts, _feed(streamer), **options)
        if streamer is not None:
            streamer.end()
        return _joined(input_ids, made.tokens, generation_config)

    def _streamer(self, given: Any, input_ids: Tensor) -> Any:
        """The streamer, if any; one from `generate` has the prompt already."""
        streamer = given if given is not None else self.streamer
        if streamer is not None and len(input_ids) > 1:
            _no("a streamer with more than one prompt")
        if streamer is not None and given is None:
            streamer.put(input_ids.cpu())
        return streamer

    def _model(self, module: nn.Module) -> HFModel:
        """The module behind `Model`; the check that it scores trees is done once."""
        kept = self._wrapped.get(id(module))
        if kept is None or module.training or (kept.device, kept.dtype) != _place(module):
            kept = self._wrapped[id(module)] = HFModel(module)
        return kept

    def _drafter(self, target: nn.Module) -> Drafter:
        if not isinstance(self.draft, nn.Module):
            return self.draft
        device, other = _place(target)[0], _place(self.draft)[0]
        if device != other:
            raise ValueError(f"the draft is on {other}, the model on {device}; move one of them")
        return ModelDrafter(self._model(self.draft), chosen_recall(None, device))


def _place(module: Any) -> tuple[torch.device, torch.dtype]:
    return module.device, module.dtype


def _no(what: str) -> None:
    raise ValueError(f"speculative custom_generate does not support {what}")


def _refuse(config: Any, synced_gpus: bool, kwargs: dict[str, Any]) -> None:
    """Refuse what would otherwise be ignored."""
    problems = {
        "return_dict_in_generate=True; it returns token ids": config.return_dict_in_generate,
        f"beam search (num_beams={config.num_beams})": (config.num_beams or 1) > 1,
        "num_return_sequences > 1": (config.num_return_sequences or 1) > 1,
        "synced_gpus": synced_gpus,
        "contrastive search (penalty_alpha)": getattr(config, "penalty_alpha", None),
        "DoLa (dola_layers)": getattr(config, "dola_layers", None) is not None,
        "prompt lookup": getattr(config, "prompt_lookup_num_tokens", None),
    }
    cache = kwargs.pop("past_key_values", None)
    filled = cache is not None and cache.get_seq_length() > 0
    problems["past_key_values"] = filled or getattr(cache, "_is_user_defined", False)
    flags = {name for name, value in kwargs.items() if value is None or value is False}
    other = sorted(set(kwargs) - HARMLESS - flags - {"tokenizer"})
    problems[f"the model arguments {', '.join(other)}"] = bool(other)
    for problem, found in problems.items():
        if found:
            _no(problem)


def _prompts(input_ids: Tensor, kwargs: dict[str, Any]) -> list[list[int]]:
    """Each row without its left padding."""
    mask = kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.device)
    seen = mask.bool()
    if mask.shape != input_ids.shape or not bool(seen[:, -1:].all()):
        _no("padding on the right; set padding_side='left'")
    if bool((seen[:, :-1] & ~seen[:, 1:]).any()):
        _no("an attention_mask with holes")
    positions = kwargs.get("position_ids")
    if positions is not None:
        usual = (seen.long().cumsum(-1) - 1).to(positions.device)
        if not bool(((positions == usual) | ~seen.to(positions.device)).all()):
            _no("position_ids of its own")
    return [row[keep].tolist() for row, keep in zip(input_ids, seen, strict=True)]


def _limits(criteria: Any, length: int) -> tuple[int, frozenset[int]]:
    """New tokens at most, and the tokens that end a text."""
    eos, most = set[int](), []
    for criterion in criteria:
        if type(criterion) is MaxLengthCriteria:
            most.append(criterion.max_length - length)
        elif type(criterion) is EosTokenCriteria:
            eos |= set(criterion.eos_token_id.flatten().tolist())
        else:
            _no(f"the stopping criterion {type(criterion).__name__}")
    if not most:
        _no("generation without max_new_tokens or max_length")
    return min(most), frozenset(eos)


def _plain_only(processors: Any) -> None:
    for processor in processors:
        if type(processor) not in WARPERS:
            _no(f"the logits processor {type(processor).__name__}")


def _sampling(processors: Any) -> dict[str, Any]:
    """temperature, top_k and top_p as the processors hold them."""
    _plain_only(processors)
    kinds = [WARPERS.index(type(processor)) for processor in processors]
    if kinds != sorted(set(kinds)):
        _no("logits processors in another order than temperature, top-k, top-p")
    options: dict[str, Any] = {"temperature": 1.0}
    for processor in processors:
        if getattr(processor, "filter_value", -torch.inf) != -torch.inf:
            _no("a filter_value other than -inf")
        if getattr(processor, "min_tokens_to_keep", 1) != 1:
            _no("min_tokens_to_keep > 1")
        for name in ("temperature", "top_k", "top_p"):
            if hasattr(processor, name):
                options[name] = getattr(processor, name)
    return options


def _fits(pair: Pair, prompts: list[list[int]], new: int) -> None:
    context, longest = pair.target.max_context, max(map(len, prompts))
    if longest + new > context:
        raise ValueError(
            f"{longest} prompt tokens and {new} new ones exceed the model's context of {context}"
        )


def _feed(streamer: Any) -> Callable[[Outcome], None]:
    """What passes each cycle's tokens on, one by one as `generate` does."""

    def watch(outcome: Outcome) -> None:
        for token in outcome.tokens[0] if streamer is not None else ():
            streamer.put(torch.tensor([token]))

    return watch


def _joined(input_ids: Tensor, tokens: list[list[int]], config: Any) -> Tensor:
    """Prompts and new tokens, padded on the right where a row ended before the others."""
    pad, longest = getattr(config, "_pad_token_tensor", None), max(map(len, tokens))
    fill = int(pad) if pad is not None else 0
    rows = [row + [fill] * (longest - len(row)) for row in tokens]
    new = torch.tensor(rows, dtype=input_ids.dtype, device=input_ids.device)
    return torch.cat([input_ids, new.view(len(rows), longest)], dim=1)
