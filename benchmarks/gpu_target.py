"""What `benchmarks.gpu` measures: how much of it, where, and the targets in all their forms."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import pick
from spec_core import Pair, embedded
from spec_core.drafters.lm import ModelDrafter
from spec_core.embedded.inflate import inflated, inflated_config
from spec_core.graphs import Static, static
from spec_core.models.fast import FastModel
from spec_core.models.load import load_model, read_config
from spec_core.models.weights import Weights, load

Shape = dict[str, Any]
LLAMA_3_8B: Shape = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
}  # fmt: skip
QWEN3_4B: Shape = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
}  # fmt: skip
SMALLER: Shape = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 500, "max_position_embeddings": 1024,
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How much a run measures."""

    copied: int = 2 << 30  # bytes
    source: Path = field(default_factory=embedded.target_path)
    larger: dict[str, int] = field(
        default_factory=lambda: {"hidden": 4096, "layers": 32, "intermediate": 14336}
    )
    llama: Shape = field(default_factory=lambda: LLAMA_3_8B)
    qwen3: Shape = field(default_factory=lambda: QWEN3_4B)
    nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    widths: tuple[int, ...] = (1, 2, 4, 8)
    context: int = 512
    samples: int = 15  # of a step
    inner: int = 5  # steps in a sample
    prompts: int = 7
    new_tokens: int = 128
    repeats: int = 3


SMOKE = Scale(
    copied=1 << 20, source=embedded.draft_path(), nodes=(1, 4), widths=(1, 2),
    llama=LLAMA_3_8B | SMALLER, qwen3=QWEN3_4B | SMALLER,
    larger={"hidden": 512, "layers": 2, "intermediate": 600}, context=20,
    samples=2, inner=1, prompts=1, new_tokens=6, repeats=1,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the models are, and how to wait for it."""

    device: torch.device
    dtype: torch.dtype

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clean(self) -> None:
        """Give memory back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fixed(self, model: FastModel) -> Static:
        """The model over fixed memory, recorded where that can be."""
        made = static(model, "auto" if self.device.type == "cuda" else "static")
        assert isinstance(made, Static)
        return made


class Held(Weights):
    """The weights of a transformers module in memory; what is not stacked is shared with it."""

    def __init__(self, module: Any) -> None:
        self.path, self.dtype, self.device = Path("memory"), module.dtype, module.device
        self.tensors = {name: tensor.detach() for name, tensor in module.named_parameters()}


def module_of(config: Any, place: Place) -> Any:
    """A random transformers model that ends no text."""
    from transformers import AutoModelForCausalLM

    with torch.device(place.device):
        module = AutoModelForCausalLM.from_config(config, dtype=place.dtype).eval()
    module.generation_config.eos_token_id = None
    module.generation_config.pad_token_id = 0
    return module


@dataclass
class Target:
    """One set of weights three times: in transformers, in ours, and in ours over fixed memory."""

    module: Any
    draft: FastModel | None
    prompts: list[list[int]]
    place: Place

    def __post_init__(self) -> None:
        self.fast = FastModel(self.module.config, Held(self.module))
        self.fixed = self.place.fixed(self.fast)
        self.fixed_draft = self.place.fixed(self.draft) if self.draft else None

    @property
    def bytes_read(self) -> int:
        """Weights that every step reads."""
        parts = [(x.qkv, x.output, x.gate_up, x.down) for x in self.fast.layers]
        return sum(p.weight.nbytes for p in [*sum(parts, ()), self.fast.head])

    def pair(self, fixed: bool) -> Pair:
        """Target and draft, over fixed memory or direct."""
        draft = self.fixed_draft if fixed else self.draft
        return Pair(self.fixed if fixed else self.fast, ModelDrafter(draft) if draft else None)


def embedded_prompts(scale: Scale) -> list[list[int]]:
    """Test prompts cut to one length, so that a compiled generate is compiled once."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded.target_path())
    texts = [tokenizer.encode(p["prompt"]) for p in pick("test", 4)]
    texts = [t for t in texts if len(t) >= 16][: scale.prompts]
    return [t[-min(map(len, texts)) :] for t in texts]


def random_prompts(scale: Scale, vocabulary: int) -> list[list[int]]:
    """Tokens drawn evenly."""
    chance = random.Random(0)
    return [[chance.randrange(vocabulary) for _ in range(32)] for _ in range(scale.prompts)]


def inflated_target(scale: Scale, place: Place) -> Target:
    """The source in the larger shape, made where it will run, with the embedded draft."""
    config = read_config(scale.source)
    new = inflated_config(config, **scale.larger)
    module = module_of(new, place)
    held = dict(module.named_parameters())
    for name, tensor in inflated(load(scale.source), config, new, place.device):
        held[name].data.copy_(tensor)
    draft = load_model(embedded.draft_path(), place.dtype, place.device, "fast")
    assert isinstance(draft, FastModel)
    return Target(module, draft, embedded_prompts(scale), place)


def llama_target(scale: Scale, place: Place) -> Target:
    """Random weights in the shape of Llama 3 8B."""
    from transformers import LlamaConfig

    return _random(LlamaConfig(**scale.llama), scale, place)


def qwen3_target(scale: Scale, place: Place) -> Target:
    """Random weights in the shape of Qwen3 4B."""
    from transformers import Qwen3Config

    return _random(Qwen3Config(**scale.qwen3), scale, place)


def _random(config: Any, scale: Scale, place: Place) -> Target:
    prompts = random_prompts(scale, config.vocab_size)
    return Target(module_of(config, place), None, prompts, place)
