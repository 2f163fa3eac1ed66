"""Measuring a finished pair by domain and writing its card; does not know how it was trained."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from spec_core.embedded import corpus, evaluate

HEAD = """# DraftGym's embedded pair

A small target and a two-layer draft (both Llama, one tokenizer) for speculative decoding on a
machine without downloads. They are made to be run fast, not to be useful language models.

Training text: the sources, docstrings and license of the Python standard library beside the
interpreter (PSF License Version 2), and generated documents. The weights may hold
fragments of that text. Held-out means: other source files, other words and numbers.

Limits: so short a training teaches the target the look of code, sums, edits, logs and settings;
its prose soon turns into one of these, and its tables lose count of their columns. It does not copy
from its context or calculate: edits and sums come out wrong. Its greedy text often falls into
loops, which are easy for the draft and raise the agreement, most of all in `random`; sampled text
does so less.
"""


def measure(
    out: Path,
    target: LlamaForCausalLM,
    draft: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> dict[str, dict]:
    """Return by domain: agreement, continuation length, both held-out losses and samples."""
    lines = (out / "prompts" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows, figures = [json.loads(line) for line in lines], {}
    for domain in corpus.DOMAINS:
        prompts = [tokenizer.encode(row["prompt"]) for row in rows if row["domain"] == domain]
        texts = corpus.documents(domain, "dev", seed + 2, 100_000)
        tokens = np.concatenate([[*tokenizer.encode(text, verbose=False), 0] for text in texts])
        agreed, length = evaluate.agreement(target, draft, prompts)
        samples = [
            tokenizer.decode(evaluate.continuations(target, prompts[:1], 60, heat)[0])
            for heat in (0.0, 0.8)
        ]
        figures[domain] = {
            "agreement": agreed,
            "length": length,
            "target loss": evaluate.held_out_loss(target, tokens),
            "draft loss": evaluate.held_out_loss(draft, tokens),
            "prompt": tokenizer.decode(prompts[0]),
            "greedy": samples[0],
            "T=0.8": samples[1],
        }
    return figures


def machine() -> str:
    """Return what ran the measurement, in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"{os.cpu_count()} CPU cores, {device}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )


def write_card(out: Path, figures: dict[str, dict], facts: dict[str, object]) -> None:
    """Write MODEL_CARD.md from measured figures and the facts of the training."""
    parts = [
        HEAD,
        "\n## Training\n\n",
        *(f"- {key}: {value}\n" for key, value in facts.items()),
        f"- measured on: {machine()}\n\n## Figures (dev split)\n\n",
        "Agreement: share of positions of the target's greedy continuation (up to 128 tokens)"
        "\nat which the draft's best token is the target's. Losses are nats per token.\n\n",
        "| domain | agreement | continuation tokens | target loss | draft loss |\n",
        "|---|---|---|---|---|\n",
    ]
    parts += [
        f"| {domain} | {row['agreement']:.3f} | {row['length']:.0f} | "
        f"{row['target loss']:.3f} | {row['draft loss']:.3f} |\n"
        for domain, row in figures.items()
    ]
    weights = [row["length"] for row in figures.values()]
    overall = np.average([row["agreement"] for row in figures.values()], weights=weights)
    parts.append(f"| all | {overall:.3f} | | | |\n\n## Samples of the target\n")
    for domain, row in figures.items():
        parts.append(f"\n### {domain}\n")
        parts += [
            f"\n{name}:\n\n~~~~text\n{row[name]}\n~~~~\n" for name in ("prompt", "greedy", "T=0.8")
        ]
    (out / "MODEL_CARD.md").write_text("".join(parts), encoding="utf-8")
