"""Figures and samples of a target/draft pair; does not know how the pair was trained."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from spec_core.embedded.data import Windows


@torch.inference_mode()
def continuations(
    model: LlamaForCausalLM, prompts: list[list[int]], new: int, temperature: float = 0.0
) -> list[list[int]]:
    """Return the continuation's ids of each prompt, up to and with the end token 0."""
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature
        else {"do_sample": False}
    )
    output = model.generate(
        padded, attention_mask=mask, max_new_tokens=new, pad_token_id=0, **sampling
    )
    rows = output[:, longest:].tolist()
    return [row[: row.index(0) + 1] if 0 in row else row for row in rows]


@torch.inference_mode()
def matches(
    target: LlamaForCausalLM, draft: LlamaForCausalLM, prompt: list[int], text: list[int]
) -> Tensor:
    """Tell at each position of the continuation whether both models' best tokens are the same."""
    ids = torch.tensor([prompt + text], device=target.device)
    best = [
        model(input_ids=ids).logits[0, len(prompt) - 1 : -1].argmax(-1) for model in (target, draft)
    ]
    return best[0] == best[1]


def agreement(
    target: LlamaForCausalLM, draft: LlamaForCausalLM, prompts: list[list[int]], new: int = 128
) -> tuple[float, float]:
    """Return the top-1 agreement on greedy continuations, and the continuations' mean length."""
    texts = continuations(target, prompts, new)
    found = [matches(target, draft, p, text) for p, text in zip(prompts, texts, strict=True)]
    return torch.cat(found).float().mean().item(), float(np.mean([len(text) for text in texts]))


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, tokens: np.ndarray, rows: int = 16) -> float:
    """Return the mean loss in nats a token on windows of 256 held-out tokens."""
    ids = Windows(tokens).batch(np.random.default_rng(5), rows, 256).to(model.device)
    logits = model(input_ids=ids).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
