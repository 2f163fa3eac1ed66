"""Seeded document generators, rng and split -> text; does not know tokens, prompts or models."""

import json
import random
import re
from collections.abc import Callable

from spec_core.embedded.pools import (
    CITIES,
    COLOURS,
    FIRST,
    ITEMS,
    NOISE,
    PLACES,
    SERVICES,
    TABLES,
    VERBS,
    pool,
)

Generator = Callable[[random.Random, str, list[str]], str]


def belongs(a: int, b: int, split: str) -> bool:
    """Tell whether the number pair is one that the split may ask about."""
    key = (a * 7 + b * 13) % 10
    return {8: "dev", 9: "test"}.get(key, "train") == split


def number_pair(rng: random.Random, split: str, low: int, high: int) -> tuple[int, int]:
    """Draw a pair of numbers that belongs to the split."""
    while True:
        a, b = rng.randint(low, high), rng.randint(low, high)
        if belongs(a, b, split):
            return a, b


def worked_sum(a: int, b: int) -> str:
    """Return the column-by-column addition of two numbers."""
    steps, carry, total = [], 0, a + b
    x, y = a, b
    while x or y:
        digit = x % 10 + y % 10
        carried = f" + {carry}" if carry else ""
        steps.append(f"{x % 10} + {y % 10}{carried} = {digit + carry}")
        carry, x, y = (digit + carry) // 10, x // 10, y // 10
    return f"Q: {a} + {b} = ?\nA: {', '.join(steps)}. So {a} + {b} = {total}.\n"


def worked_product(a: int, b: int) -> str:
    """Return the multiplication of a number by a digit, by tens and ones."""
    tens, ones = a // 10 * 10, a % 10
    steps = f"{tens} * {b} = {tens * b}, {ones} * {b} = {ones * b}, {tens * b} + {ones * b}"
    return f"Q: {a} * {b} = ?\nA: {steps} = {a * b}. So {a} * {b} = {a * b}.\n"


def counting(start: int, step: int) -> str:
    """Return the first multiples counted on from a start."""
    numbers = ", ".join(str(start + i * step) for i in range(10))
    return f"Q: count from {start} by {step}\nA: {numbers}.\n"


def arithmetic(rng: random.Random, split: str, sentences: list[str]) -> str:
    """Return 8 to 15 worked problems."""
    problems = []
    for _ in range(rng.randint(8, 15)):
        kind = rng.random()
        if kind < 0.6:
            problems.append(worked_sum(*number_pair(rng, split, 11, rng.choice((99, 999)))))
        elif kind < 0.8:
            a, _ = number_pair(rng, split, 11, 99)
            problems.append(worked_product(a, rng.randint(2, 9)))
        else:
            start, step = number_pair(rng, split, 2, 30)
            problems.append(counting(start, step))
    return "\n".join(problems)


def record_rows(rng: random.Random, split: str) -> list[dict]:
    """Draw 12 to 20 rows of one random schema."""
    choices: dict[str, Callable[[int], object]] = {
        "name": lambda i: rng.choice(pool(FIRST, split)),
        "city": lambda i: rng.choice(pool(CITIES, split)),
        "item": lambda i: rng.choice(pool(ITEMS, split)),
        "colour": lambda i: rng.choice(pool(COLOURS, split)),
        "quantity": lambda i: rng.randint(1, 20),
        "price": lambda i: round(rng.uniform(1, 90), 2),
        "active": lambda i: rng.random() < 0.8,
        "status": lambda i: rng.choice(("new", "open", "closed")),
        "age": lambda i: rng.randint(18, 80),
    }
    fields = rng.sample(list(choices), rng.randint(3, 5))
    first = rng.randint(100, 9000)
    return [
        {"id": first + i, **{field: choices[field](i) for field in fields}}
        for i in range(rng.randint(12, 20))
    ]


def records(rng: random.Random, split: str, sentences: list[str]) -> str:
    """Return rows of one schema as JSON lines, CSV or key-value sections."""
    rows, table = record_rows(rng, split), rng.choice(pool(TABLES, split))
    style = rng.choice(("json", "csv", "config"))
    if style == "json":
        return "\n".join(json.dumps({"table": table, **row}) for row in rows) + "\n"
    if style == "csv":
        lines = [",".join(rows[0])] + [",".join(map(str, row.values())) for row in rows]
        return f"# {table}\n" + "\n".join(lines) + "\n"
    sections = ("".join(f"{key} = {value}\n" for key, value in row.items()) for row in rows)
    return "\n".join(f"[{table}]\n{section}" for section in sections)


def made_sentence(rng: random.Random, split: str) -> str:
    """Return a short generated sentence with words of the split."""
    name, verb = rng.choice(pool(FIRST, split)), rng.choice(pool(VERBS, split))
    item, colour = rng.choice(pool(ITEMS, split)), rng.choice(pool(COLOURS, split))
    return f"{name} {verb} the {colour} {item} near the {rng.choice(pool(PLACES, split))}."


def edit(rng: random.Random, split: str, text: str) -> tuple[str, str]:
    """Return an instruction and the text after it was followed."""
    words = [word for word in set(text.split()) if word.isalpha() and len(word) > 2]
    kind = rng.choice(("copy", "replace", "replace", "delete", "upper"))
    if kind == "copy" or not words:
        return "Copy the text.", text
    word = rng.choice(sorted(words))
    if kind == "replace":
        new = rng.choice(pool(rng.choice((ITEMS, COLOURS, FIRST, CITIES)), split))
        return f"Replace {word} by {new}.", re.sub(rf"\b{word}\b", new, text)
    if kind == "delete":
        return f"Delete {word}.", re.sub(rf"\b{word} ", "", text)
    return f"Write {word} in capitals.", re.sub(rf"\b{word}\b", word.upper(), text)


def editing(rng: random.Random, split: str, sentences: list[str]) -> str:
    """Return several texts, each followed by edits that apply to the text's first form."""
    parts = []
    for _ in range(rng.randint(3, 4)):
        if rng.random() < 0.5:
            text = " ".join(made_sentence(rng, split) for _ in range(rng.randint(2, 3)))
        else:
            text = rng.choice(sentences)
        parts.append(f"Text: {text}\n")
        for _ in range(rng.randint(2, 3)):
            instruction, result = edit(rng, split, text)
            parts.append(f"{instruction}\nResult: {result}\n")
    return "".join(parts)


def logs(rng: random.Random, split: str, sentences: list[str]) -> str:
    """Return 14 to 22 server log lines with rising timestamps."""
    names = rng.sample(pool(SERVICES, split), 3)
    date = f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    second, request, lines = rng.randint(0, 80000), rng.randint(1000, 9000), []
    for _ in range(rng.randint(14, 22)):
        second, request = second + rng.randint(0, 3), request + 1
        clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        table = rng.choice(pool(TABLES, split))
        status, level = rng.choice((("200", "INFO"),) * 6 + (("404", "WARN"), ("500", "ERROR")))
        message = rng.choice(
            (
                f"GET /{table}/{rng.randint(1, 99)} {status} {rng.randint(2, 400)}ms",
                f"POST /{table} {status} {rng.randint(2, 400)}ms",
                f"user {rng.choice(pool(FIRST, split)).lower()} logged in",
                f"request {request} finished with status {status}",
            )
        )
        lines.append(f"{date} {clock} {level} [{rng.choice(names)}] {message}\n")
    return "".join(lines)


def noise(rng: random.Random, split: str, sentences: list[str]) -> str:
    """Return hexadecimal lines, identifiers or shuffled words."""
    kind = rng.choice(("hex", "uuid", "words", "digits"))
    if kind == "hex":
        return "".join(f"{rng.getrandbits(128):032x}\n" for _ in range(12))
    if kind == "uuid":
        forms = (f"{rng.getrandbits(128):032x}" for _ in range(12))
        return "".join(f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}\n" for h in forms)
    if kind == "digits":
        return "".join(
            " ".join(str(rng.randint(0, 9999)) for _ in range(8)) + "\n" for _ in range(10)
        )
    return "".join(" ".join(rng.choices(pool(NOISE, split), k=10)) + "\n" for _ in range(16))


GENERATORS: dict[str, Generator] = {
    "arithmetic": arithmetic,
    "records": records,
    "editing": editing,
    "logs": logs,
    "random": noise,
}
