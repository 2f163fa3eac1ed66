"""The tokenizer, the packed token array and its windows; does not know where texts come from."""

import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer with single digits and END as id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer as a folder's Hugging Face tokenizer files."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    wrapped.save_pretrained(folder)


def encode(texts: list[str], tokenizer: Tokenizer, limit: int) -> list[np.ndarray]:
    """Return each text's ids with END after them, up to a number of tokens in all."""
    rows, size = [], 0
    for text in texts:
        if size >= limit:
            break
        rows.append(np.array([*tokenizer.encode(text).ids, 0], dtype=np.uint16))
        size += len(rows[-1])
    return rows


def pack(rows: list[np.ndarray], seed: int) -> np.ndarray:
    """Return the rows in a seeded random order as one flat uint16 array."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return np.concatenate(order)


class Windows:
    """Random windows of a packed array, half of them at the beginning of a document."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens
        ends = np.flatnonzero(tokens == 0)
        self.starts = np.concatenate([[0], ends[:-1] + 1])

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> torch.Tensor:
        """Return int64 ids of shape [rows, length]."""
        last = len(self.tokens) - length
        places = rng.integers(0, last, rows)
        half = rows // 2
        places[:half] = np.minimum(rng.choice(self.starts, half), last)
        return torch.from_numpy(np.stack([self.tokens[p : p + length] for p in places]).astype(int))
