"""Prompts in files, and how to take some of every domain; knows no tokens."""

from __future__ import annotations

import json
from itertools import chain, islice, zip_longest
from pathlib import Path

Prompt = dict[str, str]


def read_prompts(file: Path) -> list[Prompt]:
    """Lines {"id", "domain", "prompt"}; a broken line is named."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # others may be within a prompt
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the prompts cannot be read ({error})") from None
    found: dict[str, Prompt] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt = {"domain": "all"} | {key: str(row[key]) for key in ("id", "prompt")}
            prompt["domain"] = str(row.get("domain", "all"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{file}, line {number}: not {{"id", "domain", "prompt"}} as JSON ({error!r})'
            ) from None
        if prompt["id"] in found:
            raise ValueError(f"{file}, line {number}: the id {prompt['id']!r} is there twice")
        if not prompt["prompt"]:
            raise ValueError(f"{file}, line {number}: the prompt is empty")
        found[prompt["id"]] = prompt
    if not found:
        raise ValueError(f"{file}: there are no prompts in it")
    return list(found.values())


def spread(prompts: list[Prompt], per_domain: int | None = None) -> list[Prompt]:
    """The first prompts of every domain, or all of them; domains take turns."""
    domains: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        domains.setdefault(prompt["domain"], []).append(prompt)
    firsts = (islice(found, per_domain) for found in domains.values())
    return [prompt for prompt in chain.from_iterable(zip_longest(*firsts)) if prompt is not None]
