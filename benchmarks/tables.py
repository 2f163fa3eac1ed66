"""Regenerates the README's tables from the committed files in benchmarks/results."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from benchmarks import comparisons

RESULTS = Path(__file__).resolve().parent / "results"
README = RESULTS.parent.parent / "README.md"
STEPS = {"nodes": "nodes of a tree", "context": "context", "batch": "batch"}
ON_A_GPU = (
    "plain decoding, tokens/s and its share of the copy bandwidth",
    "verify(T) / verify(1), T = 1 to 128",
    "a draft level by width",
    "end to end against transformers, eager and compiled, 8B shapes",
)


def read(name: str) -> dict:
    """One file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def origin(content: dict) -> str:
    """Where a table's figures come from."""
    m = content["machine"]
    place = m["gpu"] or f"{m['cpu']}, threads: {m['threads']}"
    return f"{place}; torch {m['torch']}; commit {m['commit']}; `{m['command']}`"


def interval(values: list[float]) -> str:
    """A ratio with its 95 % interval."""
    return f"{values[0]:.2f}x ({values[1]:.2f} to {values[2]:.2f})"


def describe(plan: dict) -> str:
    """A plan in words."""
    if plan["depth"] == 0:
        return "plain decoding"
    shape = "chain" if plan["width"] == 1 and plan["children"] in (0, 1) else "tree"
    extra = f", threshold {plan['threshold']}" if plan["threshold"] else ""
    wide = f", {plan['width']} wide" if plan["width"] > 1 else ""
    return f"{shape}, depth {plan['depth']}{wide}, {plan['budget']} nodes{extra}"


def speed() -> str:
    """The ratios of the speed table."""
    content = read("speed")
    lines = ["| what | ratio (95 % interval over prompts) |", "|---|---|"]
    lines += [f"| {name} | {interval(v)} |" for name, v in content["ratios"].items()]
    speeds = ", ".join(f"{name} {v[0]:.0f}" for name, v in content["tokens_per_second"].items())
    lines += ["", f"Tokens/s, prefill included: {speeds}.", ""]
    lines += ["| domain | best plan / our autoregressive |", "|---|---|"]
    by_domain = content["best plan / autoregressive by domain"]
    lines += [f"| {name} | {interval(v)} |" for name, v in by_domain.items()]
    prompts = len({row["prompt_id"] for row in content["rows"]})
    plan, alone = (describe(content[name]) for name in ("plan", "plan without recall"))
    tokens = max(row["new_tokens"] for row in content["rows"])
    lines += [
        "",
        f"{prompts} test prompts, {tokens} new tokens, T = 0, batch 1, fp32; best plan (tuned on "
        f"dev): {plan}; without recall: {alone}.",
    ]
    return "\n".join([*lines, f"Source: {origin(content)}."])


def steps() -> str:
    """Step costs and what a cycle adds."""
    content, lines = read("curves"), list[str]()
    for axis, title in STEPS.items():
        sizes = content["target"][axis]
        lines += [f"| ms per forward, by {title} | " + " | ".join(sizes) + " |"]
        lines += ["|---" * (len(sizes) + 1) + "|"]
        for model in ("target", "draft"):
            row = [f"{p['median']:.2f}" for p in content[model][axis].values()]
            lines.append(f"| {model} | " + " | ".join(row) + " |")
        lines.append("")
    outside = ", ".join(f"{v['median']:.2f} ms ({k})" for k, v in content["outside_ms"].items())
    rate = content["throughput"]
    many = rate["8"]["median"] / rate["1"]["median"]
    lines += [
        f"Outside the models' forwards, per cycle: {outside}; ranking and selection in a "
        "draft's machine code count as its forwards.",
    ]
    lines += [f"Plain decoding at batch 8 / batch 1: {many:.2f}x tokens per second."]
    lines += [f"Peak memory of `python -m spec_core`: {content['peak_mb']:.0f} MB."]
    return "\n".join([*lines, f"Source: {origin(content)}."])


def gpu() -> str:
    """What was measured on a GPU, if one was at hand."""
    if not (RESULTS / "gpu.json").exists():
        lines = ["| on a GPU | |", "|---|---|"]
        lines += [f"| {what} | no figure: no GPU was at hand |" for what in ON_A_GPU]
        return "\n".join(lines)
    content = read("gpu")
    lines = ["| on a GPU | tokens/s, median | tokens per cycle |", "|---|---|---|"]
    for target in ("inflated", "llama", "qwen3"):
        for name, made in content.get(target, {}).get("generation", {}).items():
            speed = made.get("tokens_per_second", {}).get("median")
            each = made.get("tokens_per_cycle")
            shown = f"{speed:.1f}" if speed else made.get("failed", "-")
            lines.append(f"| {target}: {name} | {shown} | {f'{each:.2f}' if each else '-'} |")
    return "\n".join([*lines, "", f"Source: {origin(content)}."])


def predicted() -> str:
    """What recordings and prices promised of policies, and what was seen."""
    if not (RESULTS / "predicted.json").exists():
        return absent("predicted")
    content = read("predicted")
    lines = ["| compared | policies | off by, of the static plan's speed | off by, in tokens/s | "
             "rank correlation |", "|---|---|---|---|---|"]  # fmt: skip
    for name, found in content["runs"].items():
        relative, absolute = (
            f"{100 * v['median']:.1f} % (at most {100 * v['most']:.1f})"
            for v in (found["relative"], found["absolute"])
        )
        lines.append(
            f"| {name} | {len(found['policies'])} | {relative} | {absolute} | {found['rank']:.2f} |"
        )
    return "\n".join([*lines, "", f"Source: {origin(content)}."])


def ceiling() -> str:
    """What knowing every chance would be worth."""
    if not (RESULTS / "ceiling.json").exists():
        return absent("ceiling")
    content = read("ceiling")
    lines = ["| | world | best static plan | foresight by chances | oracle | gap closed |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for name, run in content["runs"].items():
        for world in ("drawn", "recorded"):
            found = run[world]
            speeds = " | ".join(f"{found[who]:.1f}" for who in ("fixed", "foresight", "oracle"))
            lines.append(f"| {name} | {world} | {speeds} | {found['share']:.0%} |")
    return "\n".join([*lines, "", f"Source: {origin(content)}."])


def compared() -> dict[str, dict]:
    """What comparisons left."""
    return {file.stem: read(file.stem) for file in sorted(RESULTS.glob("policies-*.json"))}


def summary() -> str:
    """The best policies in a few lines."""
    return comparisons.summary(compared())


def policies() -> str:
    """Policies against plain decoding and the best static plan."""
    return comparisons.policies(compared(), origin)


def decide() -> str:
    """Microseconds of decisions."""
    content = read("decide")
    there, stop = content["in a decode"], content["stop in a decode"]
    each = stop["per question"]
    rows = {
        **content["decision"], "features": content["features"],
        "all of a policy with a network of 64, within a decode": there["policy"],
        "the same, 64 and 64": content["64, 64 in a decode"]["policy"],
        "a policy that may stop levels, without a question": stop["not asked"]["policy"],
    }  # fmt: skip
    lines = ["| microseconds at batch 1 | median | 90th percentile |", "|---|---|---|"]
    lines += [f"| {n} | {v['median']:.1f} | {v['p90']:.1f} |" for n, v in rows.items()]
    share = {name: f"{100 * value:.2f} %" for name, value in there["share"].items()}
    lines += [
        "",
        f"Share of the decoding time that the policy takes: {share['median']} ({share['p10']} to "
        f"{share['p90']} over {there['repeats']} repeats of {there['cycles'] // there['repeats']} "
        f"cycles; embedded pair, median cycle {there['cycle']['median'] / 1e3:.1f} ms).",
        f"A question after a level lengthens a draft by {each['within drafting']:.0f} microseconds "
        f"where the draft's machine code asks it, by {each['by Python']:.0f} where "
        f"Python does (medians of {stop['repeats']} drafts each, by turns).",
    ]
    return "\n".join([*lines, f"Source: {origin(content)}."])


def absent(name: str) -> str:
    """What stands where there are no figures yet."""
    return f"No figures are kept yet; `python -m benchmarks.{name}` makes them."


def loads() -> str:
    """Plans and learned policies by load, at both temperatures."""
    names = [name for name in ("loads", "loads-t1") if (RESULTS / f"{name}.json").exists()]
    return "\n\n".join(load(name) for name in names) or absent("loads")


def load(name: str) -> str:
    """Plans and learned policies by load, priced and live."""
    content = read(name)
    heat = content.get("settings", {}).get("temperature", 0.0)
    priced, live = content["replay"], content["live"]
    names = list(next(iter(priced.values()))["policies"])
    lines = [
        f"| tokens/s, priced, T = {heat:g} | "
        + " | ".join(f"load {load}" for load in priced)
        + " |"
    ]
    lines += ["|---" * (len(priced) + 1) + "|"]
    for name in names:
        cells = [row["policies"][name] for row in priced.values()]
        shown = [f"{c['tokens_per_second']:.1f} ({c['autoregressive_share']:.0%})" for c in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    plans = ", ".join(f"{row['static_plan']} (load {load})" for load, row in priced.items())
    lines += ["", f"In brackets: cycles without a draft. Best static plans, of train: {plans}."]
    for load, found in live.items():
        shown = [f"{n} {v['median']:.1f} ({v['p10']:.1f} to {v['p90']:.1f})"
                 for n, v in found.items()]  # fmt: skip
        lines += [f"Live at load {load}, tokens/s: {', '.join(shown)}."]
    if (RESULTS / f"{name}.png").exists():
        lines += ["", f"![Speed and drafting by load](benchmarks/results/{name}.png)", ""]
    return "\n".join([*lines, f"Source: {origin(content)}."])


def replay() -> str:
    """What replay costs, against what is asked of it."""
    if not (RESULTS / "replay.json").exists():
        return absent("replay")
    content = read("replay")
    speed, ppo = content["speed"], content["ppo"]
    cycles, ratios = speed["replay_cycles_per_second"], speed["ratio"]
    best = max(cycles, key=lambda n: cycles[n]["median"])
    rates = ", ".join(f"{v['median']:,.0f} ({n})" for n, v in cycles.items())
    over = {
        how: ", ".join(f"{r[how]:.2f} ({n})" for n, r in content["recording"]["ratios"].items())
        for how in ("over_together", "over_one_by_one")
    }
    live = speed["live_cycles_per_second"]["median"]
    rows = (
        ("replayed cycles/s, one plan (by environments)", rates, "300,000"),
        ("times live cycles/s at batch 1", f"{ratios[best]:,.0f} (live: {live:.1f})", "100"),
        ("oracle, ms per position", f"{content['oracle_ms']['oracle']['median']:.5f}", "1"),
        ("recording / plain generation, one text at a time", over["over_one_by_one"], "3"),
        ("recording / plain generation of the same batch", over["over_together"], "3"),
        ("PPO, s to within 1 % of its plateau", f"{ppo['seconds']:.1f}", "60"),
        ("bytes per position", f"{content['bytes_per_position']:.0f}", "4096"),
    )
    lines = ["| what | measured | aim |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"Source: {origin(content)}."])


TABLES = {
    "summary": summary, "speed": speed, "steps": steps, "policies": policies, "decide": decide,
    "loads": loads, "replay": replay, "predicted": predicted, "ceiling": ceiling, "gpu": gpu,
}  # fmt: skip


def filled(text: str) -> str:
    """The README's text with every table made anew."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda m, t=table: m[1] + t() + "\n" + m[2], text, flags=re.S
        )
        assert count == 1, f"the README has {count} places for the table {name}"
    return text


def main() -> None:
    """Write the README, or with --check fail where it is not what the results say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = README.read_text()
    new = filled(text)
    if options.check and new != text:
        sys.exit("README.md is not what benchmarks/results says; run python -m benchmarks.tables")
    if not options.check:
        README.write_text(new)


if __name__ == "__main__":
    main()
