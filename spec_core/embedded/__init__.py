"""Paths of the embedded target/draft pair and its prompts; does not know how they were made."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "dev", "test")


def target_path() -> Path:
    """Return the folder of the target model."""
    return HERE / "target"


def draft_path() -> Path:
    """Return the folder of the draft model."""
    return HERE / "draft"


def prompts(split: str) -> list[dict]:
    """Return the prompts of one split as dicts with id, domain, prompt and source."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    with open(HERE / "prompts" / f"{split}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
