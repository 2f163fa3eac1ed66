"""The README's tables of policies, from what comparisons left; reads and writes no files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reports.table import markdown
from reports.words import percent, ranking, signed, spread

LONG = 12  # rows from which on a table is folded
BEST = ("policies-t0-best", "policies-t1-best")
DEFAULT = "ppo_by_default"
COMMAND = "`python train.py policy=ppo` (at T = 1 with `experiment=sampled`)"
PRICED = (
    "In hindsight: by prices, on these prompts' recordings, of the recorded menu's plans; the "
    "static plan's speed is the live one."
)
Content = dict[str, Any]


def summary(files: dict[str, Content]) -> str:
    """The best policies in a few lines, a column for each of the files named here."""
    columns = [files[name] for name in BEST if name in files]
    lines = ["| " + " | ".join(["", *map(_temperature, columns)]) + " |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for what, cell in (
        ("best static plan, tuned on dev", _static),
        ("best learned policy, over it", _learned),
        ("the static plan once more, over itself", _again),
        (f"{COMMAND}, of the best learned policy's speed", _default),
        ("the oracle in hindsight, over the static plan", _oracle),
        ("time of the best learned policy's decisions", _time),
    ):
        lines.append("| " + " | ".join([what, *map(cell, columns)]) + " |")
    return "\n".join(lines)


def _temperature(content: Content) -> str:
    return f"T = {content['settings']['temperature']:g}"


def _figures(content: Content, name: str) -> Content:
    return content["summary"]["policies"][name]


def _best(content: Content) -> str:
    """The fastest of those that learned."""
    learned = content["settings"]["learned"]
    return next(name for name in ranking(content["summary"]) if name in learned)


def _static(content: Content) -> str:
    times = _figures(content, content["summary"]["static"])["ratio_to_baseline"]
    named = content["settings"]["static_plan"]
    return f"{named}: {times['value']:.2f}x plain decoding"


def _learned(content: Content) -> str:
    name = _best(content)
    return f"{name}: {_lead(content, name)}".replace("_", "\\_")


def _lead(content: Content, name: str) -> str:
    ratio = _figures(content, name)["ratio_to_static"]
    return f"{signed(ratio['value'])} ({spread(ratio)})"


def _again(content: Content) -> str:
    plan = content["settings"]["static_plan"]
    return _lead(content, plan) if plan in content["summary"]["policies"] else "-"


def _default(content: Content) -> str:
    if DEFAULT not in content["summary"]["policies"]:
        return "-"
    mine, best = (
        _figures(content, name)["tokens_per_second"]["value"]
        for name in (DEFAULT, _best(content))
    )  # fmt: skip
    return percent(mine / best)


def _oracle(content: Content) -> str:
    oracle = content.get("oracle")
    return signed(oracle["lead_oracle"]) if oracle else "-"


def _time(content: Content) -> str:
    return percent(_figures(content, _best(content))["policy_share"])


def policies(files: dict[str, Content], source: Callable[[Content], str]) -> str:
    """Policies against plain decoding and the best static plan; long tables are folded."""
    parts = []
    for content in files.values():
        settings, found = content["settings"], content["summary"]
        title = (
            f"T = {settings['temperature']:g}, batch {settings['batch_size']}, "
            f"{settings['prompts']} test prompts of seven domains, {found['repeats']} "
            f"{'repeat' if found['repeats'] == 1 else 'repeats'}, {settings['max_new_tokens']} "
            f"new tokens; the best static plan is {settings['static_plan']}."
        )
        table = [markdown(found, content.get("oracle")), ""]
        table += [PRICED, ""] if content.get("oracle") else []
        table += [f"Source: {source(content)}.", ""]
        count = len(found["policies"])
        if count > LONG or settings["batch_size"] > 1:
            title = f"{count} policies: {title}"
            parts += [f"<details><summary>{title}</summary>", "", *table, "</details>", ""]
        else:
            parts += [f"**{title}**", "", *table]
    return "\n".join(parts[:-1])
