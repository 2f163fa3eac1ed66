"""Documents and prompts by domain and split; does not know token ids beyond counting them.

Code and prose come from the running interpreter's standard library, the rest from generators.
"""

import ast
import hashlib
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

from spec_core.embedded.generators import GENERATORS

DOMAINS = ("code", "prose", *GENERATORS)
SHARES = {
    "code": 0.3,
    "prose": 0.2,
    "arithmetic": 0.1,
    "records": 0.1,
    "editing": 0.14,
    "logs": 0.1,
    "random": 0.06,
}  # of the training tokens
PROMPTS = {"train": 60, "dev": 20, "test": 40}
GENERATED = "generated"  # the source of what no file is behind
ALWAYS_TRAIN = ("LICENSE.txt", "pydoc_data/topics.py")
PIECE = 3000  # characters of a code or prose document, about
CUTS = {"arithmetic": r"(?<=A:)(?= )", "editing": r"(?<=Result:)(?= )"}


def split_of(name: str) -> str:
    """Return the split of a source file by a hash of its relative path."""
    if name in ALWAYS_TRAIN:
        return "train"
    part = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "dev" if part < 8 else "test" if part < 20 else "train"


@cache
def sources() -> dict[str, str]:
    """Return the text of the standard library's files by relative path, few of its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = {}
    for path in sorted([root / "LICENSE.txt", *root.rglob("*.py")]):
        name = path.relative_to(root).as_posix()
        outside = re.search(r"site-packages|encodings/|idlelib/idle_test|bad|/data/", name)
        skipped_test = "test" in name.split("/")[0] and len(name) % 4
        if path.is_file() and not outside and not skipped_test:
            texts[name] = path.read_bytes().decode("utf-8", errors="ignore")
    return texts


def docstrings(text: str) -> list[str]:
    """Return the docstrings of a module that are longer than two lines or so."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
    return [doc.strip() + "\n" for doc in found if doc and len(doc) > 150]


def gather(blocks: list[str]) -> list[str]:
    """Join neighbouring blocks into documents of about PIECE characters."""
    documents, current = [], ""
    for block in blocks:
        if current and len(current) + len(block) > PIECE:
            documents.append(current)
            current = ""
        current += block
    return [*documents, current]


def file_documents(domain: str, name: str, text: str) -> list[str]:
    """Return the code or the prose documents of one source file."""
    if domain == "code":
        if not name.endswith(".py") or name in ALWAYS_TRAIN:
            return []
        blocks = re.split(r"(?m)^(?=class |def |@|async def )", text)
        return [doc for doc in gather(blocks) if 200 < len(doc) < 4 * PIECE]
    if name == "LICENSE.txt":
        blocks = re.split(r"(?<=\n\n)", text)
    elif name == "pydoc_data/topics.py":
        topics = ast.literal_eval(ast.parse(text).body[0].value)  # type: ignore[attr-defined]
        blocks = [block for topic in topics.values() for block in re.split(r"(?<=\n\n)", topic)]
    else:
        blocks = [doc + "\n" for doc in docstrings(text)]
    return [doc for doc in gather(blocks) if 300 < len(doc) < 4 * PIECE]


@cache
def library_documents(domain: str, split: str) -> list[tuple[str, str]]:
    """Return all (source, document) pairs of a library domain, in a fixed shuffled order."""
    pairs = [
        (name, document)
        for name, text in sources().items()
        if split_of(name) == split
        for document in file_documents(domain, name, text)
    ]
    random.Random(domain + split).shuffle(pairs)
    return pairs


@cache
def sentences(split: str) -> dict[str, str]:
    """Return short lines of code and prose of the split, as texts to edit, and their files."""
    found: dict[str, str] = {}
    for name, document in library_documents("prose", split):
        flat = " ".join(document.split())
        for text in re.findall(r"(?<=\. )[A-Z][a-z ,'()-]{60,160}\.", flat):
            found.setdefault(text, name)
    for name, document in library_documents("code", split):
        for line in document.split("\n"):
            if 60 < len(line.strip()) < 100:
                found.setdefault(line.strip(), name)
    return found


def sourced(domain: str, split: str, seed: int, characters: int) -> list[tuple[str, str]]:
    """Return (source, document) pairs up to a number of characters (or all the library has)."""
    stream: Iterator[tuple[str, str]]
    if domain in GENERATORS:
        rng, lines = random.Random(f"{domain} {split} {seed}"), list[str]()
        if domain == "editing":
            lines = sorted(sentences(split))
        stream = ((GENERATED, GENERATORS[domain](rng, split, lines)) for _ in count())
    else:
        stream = iter(library_documents(domain, split))
    pieces, size = list[tuple[str, str]](), 0
    for source, document in stream:
        if size >= characters:
            break
        pieces.append((source, document))
        size += len(document)
    return pieces


def documents(domain: str, split: str, seed: int, characters: int) -> list[str]:
    """Return documents of a domain up to a number of characters (or all the library has)."""
    return [document for _, document in sourced(domain, split, seed, characters)]


def origin(domain: str, split: str, source: str, prompt: str) -> str:
    """Return the files that a prompt quotes, or what made it."""
    if domain != "editing":
        return source
    quoted = {name for text, name in sentences(split).items() if text in prompt}
    return " ".join(sorted(quoted)) or source


def beginning(text: str, domain: str, rng: random.Random, tokens_in: Callable[[str], int]) -> str:
    """Return a prefix of 24 to 160 tokens at a natural place that leaves 64 or more, or ''."""
    pattern = CUTS.get(domain, r"(?<=\S)(?=\s)|(?<=\n)(?=\S)")
    total = tokens_in(text)
    places = [m.start() for m in re.finditer(pattern, text[:1000])]
    rng.shuffle(places)
    for place in places:
        if 24 <= tokens_in(text[:place]) <= min(160, total - 64):
            return text[:place]
    return ""


def domain_prompts(
    domain: str, split: str, seed: int, tokens_in: Callable[[str], int]
) -> list[dict]:
    """Return the prompts of a domain and split, as many as PROMPTS says."""
    rng, found = random.Random(f"prompts {domain} {split} {seed}"), dict[str, str]()
    for source, text in sourced(domain, split, seed + 1, 600_000):
        found.setdefault(beginning(text, domain, rng, tokens_in), source)
        found.pop("", None)
        if len(found) == PROMPTS[split]:
            return [
                {
                    "id": f"{domain}-{split}-{i:03}", "domain": domain, "prompt": prompt,
                    "source": origin(domain, split, source, prompt),
                }
                for i, (prompt, source) in enumerate(found.items(), start=1)
            ]  # fmt: skip
    raise ValueError(f"too few {domain} documents for the {split} prompts")


def prompt_rows(split: str, seed: int, tokens_in: Callable[[str], int]) -> list[dict]:
    """Return the prompts of a split, domain after domain."""
    return [row for domain in DOMAINS for row in domain_prompts(domain, split, seed, tokens_in)]
