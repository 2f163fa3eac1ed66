"""Distillation of a target into a draft by cached labels; does not know domains or folders."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaForCausalLM

from spec_core.embedded.data import Windows
from spec_core.embedded.train import save_atomically

KEPT = 32  # target logits kept at each position
SHORT, LONG = 256, 1024  # lengths of the target's own text and of training text
KINDS = ("own", "text")
OWN = 0.7  # of the draft's batches


def labelled(ids: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Return ids [b, t] with the KEPT best tokens and log-probabilities [b, t, KEPT]."""
    best = logits.float().log_softmax(-1).topk(min(KEPT, logits.shape[-1]))
    return {
        "ids": ids.short().cpu(),
        "tokens": best.indices.short().cpu(),
        "scores": best.values.half().cpu(),
    }


@torch.inference_mode()
def own_text(target: LlamaForCausalLM, prefix: Tensor, length: int) -> dict[str, Tensor]:
    """Continue prefixes [b, p] to a length, half of the rows greedily and half sampled."""
    greedy = torch.arange(len(prefix), device=prefix.device) % 2 == 0
    ids, pieces, cache, fed = prefix, [], None, prefix
    while True:
        output = target(input_ids=fed, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(labelled(fed, output.logits))
        if ids.shape[1] == length:
            break
        last = output.logits[:, -1].float()
        sampled = torch.multinomial(last.softmax(-1), 1)[:, 0]
        fed = torch.where(greedy, last.argmax(-1), sampled)[:, None]
        ids = torch.cat([ids, fed], dim=1)
    return {key: torch.cat([piece[key] for piece in pieces], dim=1) for key in pieces[0]}


@torch.inference_mode()
def make_shard(
    target: LlamaForCausalLM, windows: Windows, kind: str, rng: np.random.Generator, tokens: int
) -> dict[str, Tensor]:
    """Return labels of one kind of text, about so many tokens."""
    if kind == "text":
        ids = windows.batch(rng, max(1, tokens // LONG), LONG).to(target.device)
        parts = [labelled(row, target(input_ids=row).logits) for row in ids.split(4)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    prefix = windows.batch(rng, max(2, tokens // SHORT), int(rng.integers(16, 128)))
    return own_text(target, prefix.to(target.device), SHORT)


def read_shards(folder: Path) -> list[dict]:
    """Return the label shards of a folder in the order of their making."""
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("labels-*.pt"))]


def make_labels(
    target: LlamaForCausalLM,
    windows: Windows,
    folder: Path,
    seconds: float,
    seed: int,
    tokens: int = 16384,
) -> list[dict]:
    """Return label shards made in the time given, two thirds of it on the target's own text."""
    target.eval()
    shards = read_shards(folder)
    spent = {kind: sum(s["seconds"] for s in shards if s["kind"] == kind) for kind in KINDS}
    bar = tqdm(total=round(seconds), unit="s", desc="labels")
    while sum(spent.values()) < seconds or not all(spent.values()):
        kind = "own" if spent["own"] <= 2 * spent["text"] else "text"
        start = time.monotonic()
        torch.manual_seed(seed * 100_000 + len(shards))
        rng = np.random.default_rng([seed, 7, len(shards)])
        shard: dict = make_shard(target, windows, kind, rng, tokens)
        shard |= {"kind": kind, "seconds": time.monotonic() - start}
        save_atomically(shard, folder / f"labels-{len(shards):04}.pt")
        shards.append(shard)
        spent[kind] += shard["seconds"]
        bar.update(round(min(sum(spent.values()), seconds)) - bar.n)
    bar.close()
    return shards


def label_batch(
    shards: list[dict], rng: np.random.Generator, tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, best tokens and their log-probabilities of random rows of one kind."""
    kind = KINDS[int(rng.random() >= OWN)]
    several = [shard for shard in shards if shard["kind"] == kind]
    rows = max(1, tokens // several[0]["ids"].shape[1])
    picks = [(several[int(rng.integers(len(several)))]) for _ in range(rows)]
    places = [int(rng.integers(len(shard["ids"]))) for shard in picks]
    ids, best, scores = (
        torch.stack([shard[key][place] for shard, place in zip(picks, places, strict=True)])
        for key in ("ids", "tokens", "scores")
    )
    return ids.long(), best.long(), scores.float()


def distillation_loss(draft: LlamaForCausalLM, ids: Tensor, best: Tensor, scores: Tensor) -> Tensor:
    """Return KL to the target's kept probabilities plus half the CE to the target's argmax."""
    logs = draft(input_ids=ids).logits.float().log_softmax(-1).gather(-1, best)
    divergence = (scores.exp() * (scores - logs)).sum(-1).mean()
    return divergence - 0.5 * logs[..., 0].mean()
