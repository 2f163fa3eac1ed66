"""Time-budgeted training of a Llama with depth growth; does not know texts, drafts or folders."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

HALVED = ("o_proj.weight", "down_proj.weight")


@dataclass(frozen=True)
class Plan:
    """What a training run does: a depth for each stage and the rates, by elapsed fraction."""

    seconds: float
    stages: tuple[tuple[float, int], ...]  # (fraction at which it starts, layers)
    rate: float = 6e-3  # of the matrices
    embedding_rate: float = 4e-3
    warmup: int = 30  # steps, at the start and after each growth
    decay: float = 0.3  # last fraction, over which the rates fall to zero
    save_every: float = 120.0  # seconds

    def layers(self, fraction: float) -> int:
        """Return the depth to have at an elapsed fraction."""
        return [depth for start, depth in self.stages if fraction >= start][-1]


def llama(vocabulary: int, hidden: int, intermediate: int, layers: int) -> LlamaForCausalLM:
    """Return a freshly initialised Llama with heads of 64 and tied embeddings."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=1024,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def grow(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a model of twice the depth: A B -> A A B B, each copy adding half of the layer."""
    sizes = model.config
    grown = llama(
        sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size, 2 * sizes.num_hidden_layers
    ).to(model.device)
    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[1] != "layers":
            state[name] = value
            continue
        for copy in (0, 1):
            parts[2] = str(2 * int(name.split(".")[2]) + copy)
            state[".".join(parts)] = value / 2 if name.endswith(HALVED) else value
    grown.load_state_dict(state)
    return grown


def orthogonalised(stack: Tensor, steps: int = 5) -> Tensor:
    """Return the matrices [n, rows, columns] with singular values brought near one."""
    wide = stack if stack.shape[1] <= stack.shape[2] else stack.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):  # Newton-Schulz with Muon's usual coefficients
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x if wide is stack else x.mT


class Muon(torch.optim.Optimizer):
    """Muon over matrices, equal shapes together: torch's own is slow in bfloat16 on a CPU."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix from its gradient."""
        group = self.param_groups[0]
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            shapes.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in shapes.items():
            directions = []
            for p in parameters:
                average = self.state[p].setdefault("momentum", torch.zeros_like(p))
                assert p.grad is not None
                average.lerp_(p.grad, 1 - group["momentum"])
                directions.append(p.grad.lerp(average, group["momentum"]))
            scale = group["lr"] * 0.2 * max(shape) ** 0.5  # the size of an AdamW update
            for p, update in zip(parameters, orthogonalised(torch.stack(directions)), strict=True):
                p.mul_(1 - 0.05 * group["lr"]).sub_(update, alpha=scale)


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    made = [
        Muon(matrices, lr=plan.rate),
        torch.optim.AdamW(rest, lr=plan.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in made:
        optimizer.param_groups[0]["base"] = optimizer.param_groups[0]["lr"]
    return made


def save_atomically(value: object, path: Path) -> None:
    """Write a weights_only-loadable value so that the path never holds half of it."""
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)


def next_token_loss(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return the mean cross-entropy of ids [rows, length] from their second token on."""
    logits = model(input_ids=ids).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


class Trainer:
    """A model, its optimizers and the clock, kept in one checkpoint file."""

    def __init__(self, model: LlamaForCausalLM, plan: Plan, checkpoint: Path) -> None:
        self.model, self.plan, self.checkpoint = model, plan, checkpoint
        self.optimizers = optimizers(model, plan)
        self.elapsed, self.step, self.stage_step, self.tokens, self.loss = 0.0, 0, 0, 0, 0.0
        if checkpoint.exists():
            self.load()

    def load(self) -> None:
        """Take up the state of the checkpoint file."""
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.model.device)
        while self.model.config.num_hidden_layers < state["layers"]:
            self.model = grow(self.model)
        self.model.load_state_dict(state["model"])
        self.optimizers = optimizers(self.model, self.plan)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name, value in state["clock"].items():
            setattr(self, name, value)

    def save(self) -> None:
        """Write the checkpoint file."""
        clock = ("elapsed", "step", "stage_step", "tokens", "loss")
        save_atomically(
            {
                "layers": self.model.config.num_hidden_layers,
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "clock": {name: getattr(self, name) for name in clock},
            },
            self.checkpoint,
        )

    def update(self, loss: Tensor, tokens: int) -> None:
        """Take one optimizer step at the rate of the present time."""
        fraction = self.elapsed / self.plan.seconds
        warmth = (self.stage_step + 1) / self.plan.warmup
        factor = max(0.0, min(1.0, (1 - fraction) / self.plan.decay, warmth))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["base"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.stage_step += 1
        self.tokens += tokens
        mixing = max(0.02, 1 / self.step)
        self.loss += mixing * (loss.item() - self.loss)

    def ticks(self) -> Iterator[float]:
        """Yield the elapsed fraction before each step until the time is over, saving at times."""
        bar = tqdm(
            total=round(self.plan.seconds),
            initial=round(self.elapsed),
            unit="s",
            desc=self.checkpoint.stem,
            mininterval=2,
            smoothing=0,
        )
        last, saved = time.monotonic(), self.elapsed
        while self.elapsed < self.plan.seconds:
            fraction = self.elapsed / self.plan.seconds
            while self.model.config.num_hidden_layers < self.plan.layers(fraction):
                self.model = grow(self.model)
                self.optimizers, self.stage_step = optimizers(self.model, self.plan), 0
            tokens = self.tokens
            yield fraction
            now = time.monotonic()
            speed = (self.tokens - tokens) / (now - last)
            self.elapsed, last = self.elapsed + now - last, now
            bar.set_postfix(
                loss=f"{self.loss:.3f}",
                tok_s=f"{speed:.0f}",
                step=self.step,
                layers=self.model.config.num_hidden_layers,
                refresh=False,
            )
            bar.update(min(round(self.elapsed), bar.total) - bar.n)
            if self.elapsed - saved > self.plan.save_every or self.elapsed >= self.plan.seconds:
                self.save()
                saved = self.elapsed
        bar.close()

    def run(self, loss_of: Callable[[LlamaForCausalLM, int, float], tuple[Tensor, int]]) -> None:
        """Train to the end of the plan; loss_of(model, step, fraction) gives loss and tokens."""
        cuda = self.model.device.type == "cuda"
        for fraction in self.ticks():
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=cuda):
                loss, tokens = loss_of(self.model, self.step, fraction)
            self.update(loss, tokens)
