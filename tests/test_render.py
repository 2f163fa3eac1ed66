"""Streaming never shows half a character and adds up to the text; trees are drawn legibly."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer, decoders, models

from spec_core.render import HALF, TextStream, byte_tokens, draw, plain, show_trees
from spec_core.tree import NOTHING, Tree

WORDS = ["\u2581Hello", "\u2581", "lo", "\u00e9", ".", "\u2581n't", "<0xzz>"]


def byte_level() -> Tokenizer:
    """Tokens are bytes, as in GPT-2."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in letters}
    names |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in names)}
    vocabulary = {names[byte]: byte for byte in range(256)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.decoder = decoders.ByteLevel()
    return made


def byte_fallback() -> Tokenizer:
    """Tokens are bytes in angle brackets, and words, as in Llama 2."""
    names = [f"<0x{byte:02X}>" for byte in range(256)] + WORDS
    vocabulary = {name: index for index, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return made


class Named:
    """The one method of a transformers tokenizer that is needed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.convert_ids_to_tokens = tokenizer.id_to_token


TOKENIZERS = {"level": byte_level(), "fallback": byte_fallback()}
TEXTS = st.text("aé€😀 \ufffd\n", max_size=30).map(lambda text: list(text.encode()))
NOISE = st.lists(st.integers(0, 255), max_size=30)
MIXED = st.lists(st.one_of(st.integers(0, 262), st.integers(226, 262)), max_size=40)


def streamed(tokenizer: Tokenizer, tokens: list[int], cuts: list[int], check: bool) -> str:
    """The pieces together; the tokens come in groups."""
    stream, pieces, start = TextStream(tokenizer.decode, byte_tokens(Named(tokenizer))), [], 0
    for cut in [*sorted(cuts), len(tokens)]:
        pieces.append(stream.push(tokens[start:cut]))
        start = max(start, cut)
        assert not (check and HALF in pieces[-1])
    return "".join(pieces) + stream.finish()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(tokens=st.one_of(TEXTS, NOISE, MIXED), cuts=st.lists(st.integers(0, 30)))
def test_pieces_are_the_text(name, tokens, cuts):
    tokenizer = TOKENIZERS[name]
    tokens = [token % 256 for token in tokens] if name == "level" else tokens
    cuts = [min(cut, len(tokens)) for cut in cuts]
    assert streamed(tokenizer, tokens, cuts, False) == tokenizer.decode(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text("aé€😀 \n", max_size=30))
def test_no_piece_has_half_a_character(name, text):
    tokens = list(text.encode())
    got = streamed(TOKENIZERS[name], tokens, list(range(len(tokens))), True)
    assert got == TOKENIZERS[name].decode(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_is_decoded_in_windows(name, monkeypatch):
    monkeypatch.setattr("spec_core.render.WINDOW", 16)
    text = "Grüße, 世界! 😀 and so on. " * 20
    tokens = list(text.encode())
    if name == "fallback":  # words between the bytes, as in real texts
        tokens = [t for i, byte in enumerate(tokens) for t in ([byte, 258] if i % 7 else [byte])]
    sizes, tokenizer = [], TOKENIZERS[name]

    def decode(some: list[int]) -> str:
        sizes.append(len(some))
        return tokenizer.decode(some)

    stream = TextStream(decode, byte_tokens(Named(tokenizer)))
    pieces = [stream.push([token]) for token in tokens]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(tokens)
    assert max(sizes) < 60


def tree() -> Tree:
    """Root 'a' with children 'b', 'c'; 'd' under 'c'; one node of padding."""
    tokens = torch.tensor([[97, 98, 99, 10, NOTHING]])
    parents, depths = torch.tensor([[0, 0, 0, 2, 0]]), torch.tensor([[0, 1, 1, 2, 0]])
    scores = torch.tensor([[0.0, 0.5, 0.25, 0.125, 0.0]]).log()
    return Tree(tokens, parents, depths, scores, torch.full_like(tokens, -1), depth=2)


def letters(tokens: list[int]) -> str:
    """Token ids are code points."""
    return "".join(map(chr, tokens))


def test_plain_drawing():
    lines = plain(tree(), 0, [2, 3], letters, bonus=122).splitlines()
    assert lines == [
        "'a'",
        "├──   'b'  0.500",
        "└── * 'c'  0.250",
        "    └── * '\\n'  0.125",
        "        └── + 'z'",
    ]


def test_drawing_without_bonus_and_path():
    lines = plain(tree(), 0, [], letters).splitlines()
    assert len(lines) == 4
    assert not any(mark in "".join(lines) for mark in "*+\x1b")


def test_terminal_drawing_has_colours_and_marks():
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as shown:
        console.print(draw(tree(), 0, [2, 3], letters, bonus=122))
    assert "\x1b[" in shown.get()
    assert "* 'c'" in shown.get()


def test_markup_of_a_token_is_shown_as_it_is():
    assert "'[b]'" in plain(tree(), 0, [], lambda tokens: "[b]")


def test_without_rich_there_is_a_line_instead_of_trees(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    show_trees([SimpleNamespace(drafted=[3])], letters)
    assert capsys.readouterr().out == "to see the last trees, install rich\n"
