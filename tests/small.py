"""Tiny random models, pairs of them, random plans and a drafter without a network."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spec_core import Pair, Plan, Template
from spec_core.drafters.base import Candidates, DraftState, Frontier, Rank
from spec_core.drafters.lm import ModelDrafter
from spec_core.models.base import Model
from spec_core.models.load import load_model
from spec_core.policy import Silent

VOCAB = 61
BYTES = 258  # bytes, the end, one to spare
CPU = torch.device("cpu")
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}


def randomise(module, seed: int):
    """Norms off one and biases off zero: at their initial values, to ignore them goes unnoticed."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if "norm" in name or name.endswith("bias"):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=noise))
    return module.eval()


def build(family: str = "Llama", seed: int = 0, **sizes):
    """A random transformers model."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **sizes})
    return randomise(getattr(transformers, f"{family}ForCausalLM")(config), seed)


def blur(module, amount: float, seed: int = 1, **sizes):
    """A noisy copy: a draft that is right some of the time."""
    copy = type(module)(type(module.config)(**{**module.config.to_dict(), **sizes})).eval()
    noise = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + amount * tensor.std() * torch.randn(tensor.shape, generator=noise)
        for name, tensor in module.state_dict().items()
    }
    copy.load_state_dict(state)
    return copy


def load(module, backend: str = "auto", dtype: torch.dtype = torch.float32, **saving) -> Model:
    """The module behind a backend, through a checkpoint folder."""
    with TemporaryDirectory() as folder:
        module.save_pretrained(folder, **saving)
        return load_model(Path(folder), dtype, CPU, backend)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "<end>"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def save(module, folder: Path) -> Path:
    """A checkpoint folder with the tokenizer."""
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@cache
def target(backend: str = "auto") -> Model:
    """The target of the tests."""
    return load(build(), backend)


@cache
def drafter(kind: str, backend: str = "auto") -> ModelDrafter:
    """`other`: hardly ever right; `same`: always; `short`: small context; `near`: sometimes.

    The last also recalls the text's past, as pairs do by default.
    """
    if kind == "same":
        return ModelDrafter(target(backend))
    modules = {
        "other": lambda: build(seed=1),
        "near": lambda: blur(build(), 0.15),
        "short": lambda: blur(build(), 0.15, max_position_embeddings=24),
    }
    return ModelDrafter(load(modules[kind](), backend), recall=kind == "near")


def pair_of(kind: str, backend: str = "auto", **fields) -> Pair:
    """The target with one of the drafters."""
    return Pair(target(backend), drafter(kind, backend), **fields)


class Letters:
    """A tokenizer of one character per token."""

    eos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) - 48 for letter in text]

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(48 + token) for token in tokens)


class Counting:
    """A model that counts the rows and the queries of its forwards."""

    def __init__(self, model: Model) -> None:
        self.model, self.rows, self.queries = model, [], []

    def __getattr__(self, name: str):
        if name in ("beam", "branch", "chain", "feed", "straight"):
            raise AttributeError("there is no way past forward")
        return getattr(self.model, name)

    def forward(self, tokens: Tensor, *rest, **options) -> Tensor:
        self.rows.append(tokens.shape[0])
        self.queries.append(tokens.shape[1])
        return self.model.forward(tokens, *rest, **options)


class Mixed(Silent):
    """A different random plan for every sequence and cycle, and random stops where asked."""

    def __init__(
        self, plans: list[Plan], seed: int = 0, levels: bool = False, trims: bool = False
    ) -> None:
        self.plans, self.random = plans, random.Random(seed)
        self.levels, self.trims = levels, trims

    def plan(self, observation) -> list[Plan]:
        return [self.random.choice(self.plans) for _ in observation.rows]

    def stop(self, level) -> Tensor:
        return torch.tensor([self.random.random() < 0.4 for _ in level.scores])

    def trim(self, tree) -> list[int]:
        return [self.random.randint(1, 8) for _ in tree.tokens]


class Hashed:
    """A drafter without a network: logits are a hash of the text; remembers nothing."""

    max_context = 10_000

    def __init__(self, vocab: int = VOCAB, sharpness: float = 2.0) -> None:
        self.vocab_size, self.sharpness = vocab, sharpness

    def logits(self, text: tuple[int, ...]) -> Tensor:
        noise = torch.Generator().manual_seed(hash((self.sharpness, text[-4:])) % 2**31)
        return self.sharpness * torch.randn(self.vocab_size, generator=noise)

    def open(self, batch: int, slots: int, greedy: bool = True) -> HashedState:
        return HashedState(self)


class HashedState(DraftState):
    """The texts behind every draft slot of this cycle."""

    misses = False

    def __init__(self, drafter: Hashed) -> None:
        self.drafter, self.asked, self.committed = drafter, [], []

    def start(self, texts: list[list[int]], rank: Rank) -> Candidates:
        self.asked = [1]
        self.paths = [[tuple(text)] for text in texts]
        return rank(self._logits(1), 0)

    def expand(self, frontier: Frontier, rank: Rank) -> Candidates:
        width = frontier.tokens.shape[1]
        self.asked.append(width)
        for row, paths in enumerate(self.paths):
            assert len(paths) == frontier.slot
            for node in range(width):
                token = int(frontier.tokens[row, node])
                parent = paths[-1 - node] if frontier.chain else self._parent(frontier, row, node)
                paths.append((*parent, token))
        return rank(self._logits(width), frontier.depths)

    def _parent(self, frontier: Frontier, row: int, node: int) -> tuple[int, ...]:
        seen = frontier.ancestors[row, node].nonzero().flatten().tolist()
        assert seen[-1] == frontier.slot + node, "a node sees itself"
        return max((self.paths[row][slot] for slot in seen[:-1]), key=len)

    def _logits(self, width: int) -> Tensor:
        return torch.stack(
            [torch.stack([self.drafter.logits(t) for t in paths[-width:]]) for paths in self.paths]
        )

    def commit(self, row: int, length: int, path: list[int]) -> None:
        self.committed.append((row, length, path))

    def replace(self, row: int, source: int) -> None:
        pass

    def admit(self) -> None:
        pass


@st.composite
def templates(draw, nodes: int = 9, ranks: int = 3, full: bool = False) -> Template:
    """Random shapes; full: no rank is skipped."""
    parents, taken = [], {}
    for node in range(1, draw(st.integers(1, nodes)) + 1):
        open_ = [p for p in range(node) if len(taken.get(p, [])) < ranks]
        parent = draw(st.sampled_from(open_))
        free = [r for r in range(ranks) if r not in taken.get(parent, [])]
        taken.setdefault(parent, []).append(free[0] if full else draw(st.sampled_from(free)))
        parents.append((parent, taken[parent][-1]))
    return Template(tuple(p for p, _ in parents), tuple(r for _, r in parents))


@st.composite
def grown(draw, depth: int = 5, width: int = 4) -> Plan:
    """Random plans that are no templates."""
    return Plan(
        depth=draw(st.integers(0, depth)),
        width=draw(st.integers(1, width)),
        children=draw(st.integers(0, width)),
        budget=draw(st.sampled_from([1, 2, 3, 5, 8, 13, 64])),
        threshold=draw(st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.3, 0.9, 1.0])),
        frontier=draw(st.sampled_from(["level", "best"])),
    )


def plans(full: bool = False) -> st.SearchStrategy[Plan]:
    """Random plans of every kind."""
    return st.one_of(grown(), grown(), templates(full=full).map(Plan.of))


def closure(parents: list[int]) -> Tensor:
    """Ancestors, one step at a time."""
    seen = torch.eye(len(parents), dtype=torch.bool)
    for node in range(1, len(parents)):
        seen[node] |= seen[parents[node]]
    return seen


def random_parents(nodes: int, seed: int) -> list[int]:
    """The parents of a random tree; the root is its own."""
    chance = random.Random(seed)
    return [0, *(chance.randrange(node) for node in range(1, nodes))]
