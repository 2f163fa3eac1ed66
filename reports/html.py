"""report.html: one file that needs nothing else; arranges sections, computes no figures."""

from __future__ import annotations

import re
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from reports import charts, tables
from reports.decisions import decision, decision_shares
from reports.parts import block, count, figure, key, legend, prose, section, swatch
from reports.results import summary_of
from reports.scatter import has_points, scatter
from reports.statistics import Differs, check_lossless
from reports.svg import element
from reports.words import Role, Summary, headline, hindsight, percent, roles, signed, speed

STYLE = Path(__file__).with_name("report.css")
GUIDES = r"^((?:[│├└─|+`-]|[^\S\n])*)"  # what a drawn tree's lines begin with
ACCEPTED = re.compile(GUIDES + r"(\* .*)$", re.MULTILINE)
BONUS = re.compile(GUIDES + r"(\+ .*)$", re.MULTILINE)


def write_report(results: dict[str, Any], path: str | Path) -> None:
    """Write the whole report to one file; parts without data are left out."""
    summary = summary_of(results)
    learned = list(results["settings"].get("learned") or [])
    title, lead = headline(summary, learned)
    sections = [
        _top(results, summary, title, lead),
        _speed(summary, learned, results.get("oracle")),
        _domains(summary, learned),
        _lengths(summary, learned),
        _time(summary, learned),
        _decisions(results.get("decisions") or {}),
        _trees(results.get("trees") or []),
        _origin(results, summary),
        _numbers(results, summary, learned),
    ]
    page = PAGE.format(
        title=escape(title), style=STYLE.read_text(encoding="utf-8"), body="\n".join(sections)
    )
    Path(path).write_text(page, encoding="utf-8")


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _top(results: dict[str, Any], summary: Summary, title: str, lead: str) -> str:
    """The sentence on top, the few figures that matter, and whether outputs were the same."""
    kinds = roles(summary, results["settings"].get("learned") or [])
    pair = results["settings"].get("pair")
    parts = [prose(f"DraftGym evaluation{f', {pair}' if pair else ''}", "eyebrow")]
    parts += [element("h1", escape(title)), prose(lead, "lead")]
    parts += [
        _facts(summary, next(iter(kinds)), results.get("oracle")),
        _same(results["rows"], kinds, results["settings"]),
    ]
    return element("header", "".join(parts))


def _facts(summary: Summary, best: str, oracle: dict[str, Any] | None) -> str:
    """The fastest policy's figures, large."""
    figures = summary["policies"][best]
    facts = {f"tokens/s, {best}": speed(figures["tokens_per_second"]["value"])}
    if figures["ratio_to_baseline"] and best != summary["baseline"]:
        facts["plain decoding's speed"] = f"{figures['ratio_to_baseline']['value']:.2f}x"
    if figures["ratio_to_static"] and best != summary["static"]:
        facts["against the best static plan"] = signed(figures["ratio_to_static"]["value"])
    if oracle and best in oracle["shares"]:
        facts["of the gap to the oracle closed"] = percent(oracle["shares"][best], 0)
    facts[f"prompts in {count(len(summary['domains']), 'domain')}"] = f"{summary['prompts']:,}"
    pairs = (element("dt", escape(k)) + element("dd", escape(v)) for k, v in facts.items())
    return element("dl", "".join(element("div", pair) for pair in pairs), kind="facts")


def _same(rows: list[dict[str, Any]], kinds: dict[str, Role], settings: dict[str, Any]) -> str:
    """Whether all policies emitted the same tokens, where they have to."""
    if settings.get("verifier") == "rejection" and settings.get("temperature", 0) > 0:
        words = "Rejection draws each policy's tokens anew from the target's distribution: texts "
        return prose(words + "differ, and were not compared.", "note")
    try:
        check_lossless(rows)
    except Differs as difference:
        return prose(f"Outputs are not identical: {difference}.", "warning")
    if len(kinds) < 2:
        return ""
    words = "All policies emitted the same tokens for every prompt, so only time differs."
    return prose(words, "note")


def _speed(summary: Summary, learned: list[str], oracle: dict[str, Any] | None) -> str:
    """Speeds, and differences to the best static plan."""
    kinds = roles(summary, learned)
    about = "Tokens per second: all tokens over all seconds, with 95 % intervals over prompts."
    paired = summary["static"] in kinds and len(kinds) > 1
    if paired:
        about += " They hold the differences between prompts; the next drawing is paired."
    figures = [key(kinds), figure(partial(charts.speeds, summary, learned), about)]
    if oracle:
        figures.append(prose(hindsight(oracle), "note"))
    if paired:
        about = "Difference to the best static plan on the same prompts, 95 % intervals. "
        about += "An arrow marks a policy outside the range drawn."
        figures.append(element("h3", "Against the best static plan"))
        figures.append(figure(partial(charts.differences, summary, learned), about))
    return section("Speed", "".join(figures))


def _domains(summary: Summary, learned: list[str]) -> str:
    """The heat table."""
    kinds = roles(summary, learned)
    if summary["static"] not in kinds or len(kinds) < 2:
        return ""
    about = "Blue is faster than the best static plan and orange slower, the deeper "
    about += "the more; bold: the 95 % interval excludes 0."
    return section("By domain", tables.heat(summary, kinds) + prose(about, "note"))


def _lengths(summary: Summary, learned: list[str]) -> str:
    """Accepted length against tree size."""
    if not has_points(summary):
        return ""
    about = "The axes need not begin at 0; policies that draft nothing are not drawn."
    if len(summary["domains"]) > 6:
        about += " There are six shapes: pointing at a mark names its domain."
    shapes = {domain: swatch(i) for i, domain in enumerate(summary["domains"])}
    drawn = figure(partial(scatter, summary, learned), about)
    return section("Accepted length against tree size", legend(shapes) + drawn)


def _time(summary: Summary, learned: list[str]) -> str:
    """Where a token's time goes."""
    parts, kinds = charts.time_parts(summary), roles(summary, learned)
    colours = legend({name: block(f"part-{part}") for part, name in parts.items()})
    drawn = figure(partial(charts.times, summary, learned), "Milliseconds per token.")
    table = tables.folded("The same as a table", tables.time_table(summary, kinds, parts))
    return section("Where the time goes", colours + drawn + table)


def _decisions(decisions: dict[str, list[dict[str, Any]]]) -> str:
    """How often each option was chosen, by what the policy saw."""
    content = ""
    for i, (policy, entries) in enumerate(decisions.items()):
        for j, entry in enumerate(entry for entry in entries if entry["shares"]):
            shares = decision_shares(entry)
            plans = list(shares[0][1])
            shades = (f"shade-{charts.shade(k, len(plans))}" for k in range(len(plans)))
            colours = {plan: block(kind) for plan, kind in zip(plans, shades, strict=True)}
            content += element("h3", escape(f"{policy}, by {entry['feature']}"))
            content += legend(colours) + figure(partial(decision, entry, f"decision-{i}-{j}"))
            content += _decision_table(f"{policy}: share of decisions", entry)
    about = "Share of the decisions in which each option was chosen, by the range of what was "
    about += "observed: a plan once a cycle, or going on at each question after a draft's level."
    return section("What the policies do", prose(about, "note") + content, content)


def _decision_table(caption: str, entry: dict[str, Any]) -> str:
    shares = decision_shares(entry)
    lines = [[name, *(percent(share) for share in row.values())] for name, row in shares]
    header = [entry["feature"], *shares[0][1]]
    return tables.folded("The same as a table", tables.grid(caption, header, lines, {}))


def _trees(trees: list[dict[str, Any]]) -> str:
    """Some drafted trees as text, accepted tokens marked."""
    drawn = ""
    for tree in trees:
        words = ACCEPTED.sub(r"\1<b>\2</b>", escape(tree["text"], quote=False))
        words = BONUS.sub(r"\1<i>\2</i>", words)
        caption = element("figcaption", escape(f"{tree['policy']}, prompt {tree['prompt_id']}"))
        drawn += element("figure", caption + element("pre", words, tabindex="0"))
    about = "Drafted tokens with path probabilities: * accepted, + the target's own."
    content = prose(about, "note") + element("div", drawn, kind="trees")
    return section("Some drafted trees", content, drawn)


def _origin(results: dict[str, Any], summary: Summary) -> str:
    """Settings, machine and how the intervals were made."""
    settings = {**results["settings"], **(results.get("machine") or {})}
    pairs = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in settings.items()
        if value not in (None, [], "")
    }
    rows = (
        element("dt", escape(k.replace("_", " "))) + element("dd", escape(v))
        for k, v in pairs.items()
    )
    about = (
        f"Intervals: {summary['draws']:,} paired bootstrap draws over "
        f"{count(summary['prompts'], 'prompt')}, {count(summary['repeats'], 'repeat')} of each "
        "kept together. They say nothing about other machines, other domains or another training "
        "seed, and make no allowance for the best of several policies being picked on the same "
        "prompts."
    )
    content = element("dl", "".join(rows), kind="settings") + prose(about, "note")
    return section("Settings and machine", content)


def _numbers(results: dict[str, Any], summary: Summary, learned: list[str]) -> str:
    """All figures as tables."""
    kinds = roles(summary, learned)
    whole = tables.policy_table(summary, kinds, results.get("oracle"))
    return section(
        "All numbers", whole + tables.folded("By domain", tables.domain_table(summary, kinds))
    )
