"""Command that makes the embedded target, draft and prompts; does not know the training maths.

python -m spec_core.embedded.build --out DIR [--minutes 60] [--device cpu] [--seed 0] [--resume]

The minutes are those of training; preparing and measuring take about three more. The clock drives
the schedule, so texts and prompts repeat exactly from a seed and an interpreter, weights do not.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from spec_core.embedded import HERE, SPLITS, corpus, data, distil
from spec_core.embedded.card import measure, write_card
from spec_core.embedded.train import Plan, Trainer, llama, next_token_loss

TARGET_SHARE, LABEL_SHARE = 0.35, 0.3  # of the minutes; the draft's own steps get the rest
MARK = "is-a-build"  # the file by which a work folder is known
LONG_FROM = 0.92  # elapsed fraction from which the target trains on the full length


@dataclass(frozen=True)
class Sizes:
    """How large the models and the training text are; the defaults are what ships."""

    vocabulary: int = 2048
    hidden: int = 256
    target_inner: int = 704
    draft_inner: int = 512
    draft_layers: int = 2
    stages: tuple[tuple[float, int], ...] = ((0.0, 3), (0.6, 6), (0.8, 12), (0.9, 24))
    train_tokens: int = 4_000_000
    batch_tokens: int = 2048
    label_tokens: int = 16384
    save_every: float = 120.0


def training_documents(domain: str, seed: int, tokens: int) -> list[str]:
    """Return documents of the domain that hold at least its share of so many tokens."""
    return corpus.documents(domain, "train", seed, int(5 * tokens * corpus.SHARES[domain]))


def prepare(work: Path, sizes: Sizes, seed: int) -> tuple[Tokenizer, data.Windows]:
    """Return the tokenizer and the packed training text, made once in the work folder."""
    vocabulary, packed = work / "tokenizer.json", work / "train.npy"
    if not packed.exists():
        sampled = [
            text
            for domain in corpus.DOMAINS
            for text in training_documents(domain, seed, min(600_000, sizes.train_tokens))
        ]
        tokenizer = data.train_tokenizer(sampled, sizes.vocabulary)
        tokenizer.save(str(vocabulary))
        rows = [
            row
            for domain in corpus.DOMAINS
            for row in data.encode(
                training_documents(domain, seed, sizes.train_tokens),
                tokenizer,
                int(sizes.train_tokens * corpus.SHARES[domain]),
            )
        ]
        partial = work / "partial.npy"
        np.save(partial, data.pack(rows, seed))
        os.replace(partial, packed)
    return Tokenizer.from_file(str(vocabulary)), data.Windows(np.load(packed))


def write_prompts(out: Path, tokenizer: Tokenizer, seed: int) -> None:
    """Write the tokenizer files of both models and the three prompt files."""
    for name in ("target", "draft"):
        data.save_tokenizer(tokenizer, out / name)
    (out / "prompts").mkdir(exist_ok=True)
    for split in SPLITS:
        rows = corpus.prompt_rows(split, seed, lambda text: len(tokenizer.encode(text).ids))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / "prompts" / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def export(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model in half precision as safetensors with its configuration."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def train_target(
    work: Path, windows: data.Windows, sizes: Sizes, minutes: float, device: str, seed: int
) -> Trainer:
    """Return the trainer of the target when its share of the time is used."""

    def loss_of(model: LlamaForCausalLM, step: int, fraction: float) -> tuple[torch.Tensor, int]:
        length = 1024 if fraction >= LONG_FROM else 256
        rows = max(1, sizes.batch_tokens // length)
        ids = windows.batch(np.random.default_rng([seed, 1, step]), rows, length).to(device)
        return next_token_loss(model, ids), ids.numel()

    torch.manual_seed(seed)
    model = llama(sizes.vocabulary, sizes.hidden, sizes.target_inner, sizes.stages[0][1])
    plan = Plan(60 * minutes * TARGET_SHARE, sizes.stages, save_every=sizes.save_every)
    trainer = Trainer(model.to(device), plan, work / "target.pt")
    if trainer.elapsed < plan.seconds:  # what was distilled from an earlier target is of no use
        for stale in [*work.glob("labels-*.pt"), *work.glob("draft.pt")]:
            stale.unlink()
    trainer.run(loss_of)
    return trainer


def train_draft(
    work: Path,
    target: LlamaForCausalLM,
    windows: data.Windows,
    sizes: Sizes,
    minutes: float,
    seed: int,
) -> Trainer:
    """Return the trainer of the draft, distilled from the target's cached labels."""
    shards = distil.make_labels(
        target, windows, work, 60 * minutes * LABEL_SHARE, seed, sizes.label_tokens
    )

    def loss_of(model: LlamaForCausalLM, step: int, fraction: float) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng([seed, 2, step])
        batch = [
            part.to(target.device) for part in distil.label_batch(shards, rng, sizes.batch_tokens)
        ]
        return distil.distillation_loss(model, *batch), batch[0].numel()

    torch.manual_seed(seed + 1)
    draft = llama(sizes.vocabulary, sizes.hidden, sizes.draft_inner, sizes.draft_layers)
    draft.model.embed_tokens.load_state_dict(target.model.embed_tokens.state_dict())
    seconds = 60 * minutes * (1 - TARGET_SHARE - LABEL_SHARE)
    plan = Plan(seconds, ((0.0, sizes.draft_layers),), save_every=sizes.save_every)
    trainer = Trainer(draft.to(target.device), plan, work / "draft.pt")
    trainer.run(loss_of)
    return trainer


def begin(work: Path, resume: bool) -> None:
    """Make the work folder; what an earlier build left there goes, unless it is to go on."""
    mark = work / MARK
    work.mkdir(parents=True, exist_ok=True)
    if not mark.exists() and any(work.iterdir()):
        raise FileExistsError(f"{work} holds what is no build's; give an empty folder")
    mark.touch()
    for path in [] if resume else work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()


def build(
    out: Path,
    work: Path,
    minutes: float,
    device: str = "cpu",
    seed: int = 0,
    resume: bool = False,
    sizes: Sizes | None = None,
) -> None:
    """Make the pair, the prompts and the card in out; work keeps what a resumed build needs."""
    sizes = sizes or Sizes()
    begin(work, resume)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, windows = prepare(work, sizes, seed)
    write_prompts(out, tokenizer, seed)
    target = train_target(work, windows, sizes, minutes, device, seed)
    export(target.model, out / "target")
    target.model.requires_grad_(False)
    draft = train_draft(work, target.model, windows, sizes, minutes, seed)
    export(draft.model, out / "draft")
    facts = {
        "target tokens seen": target.tokens,
        "target steps": target.step,
        "target training loss": round(target.loss, 3),
        "draft tokens seen": draft.tokens,
        "draft steps": draft.step,
        "training minutes": minutes,
        "seed": seed,
        "device": device,
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    evaluate(out, device, seed)


def evaluate(out: Path, device: str, seed: int) -> None:
    """Measure the pair that lies in out and write its card."""
    torch.manual_seed(seed)
    target, draft = (
        AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32).to(device).eval()
        for name in ("target", "draft")
    )
    tokenizer = AutoTokenizer.from_pretrained(out / "target")
    facts = json.loads((out / "training.json").read_text())
    write_card(out, measure(out, target, draft, tokenizer, seed), facts)


def main() -> None:
    """Read the command line and build or evaluate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the finished pair")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of checkpoints and cached labels",
        default=Path(tempfile.gettempdir()) / "draftgym-embedded",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="training time of both models")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the work folder")
    parser.add_argument("--evaluate-only", action="store_true", help="measure what out holds")
    options = parser.parse_args()
    if options.evaluate_only:
        evaluate(options.out, options.device, options.seed)
        return
    if options.out.resolve().is_relative_to(options.work.resolve()):
        sys.exit("error: --out lies within --work, which is emptied; give another folder")
    option = "--work"  # both are tried before hours are spent
    try:
        begin(options.work, options.resume)
        option = "--out"
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        sys.exit(f"error: cannot write to {option}: {error}")
    build(options.out, options.work, options.minutes, options.device, options.seed, options.resume)


if __name__ == "__main__":
    main()
