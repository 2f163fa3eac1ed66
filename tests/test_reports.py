"""The page and the tables of a run, on made-up results; the last tests open them in a browser."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reports import markdown, read_results, summarise, table, write_report
from reports.__main__ import main
from reports.decisions import MOST, bins, decision_shares
from reports.svg import steps
from reports.words import headline, signed

TREE = """\
'import'
├── * ' os'  0.812
│   ├── * '\\n'  0.731
│   │   ├──   'from'  0.214
│   │   └── + 'import'
│   └──   '.'  0.034
└──   ' * '  0.061"""
SPEEDS = {  # policy: (tokens/s, nodes per cycle, accepted per cycle, share of time in the policy)
    "autoregressive": (61, 0, 0, 0.0),
    "best-static": (131, 11, 2.3, 0.002),
    "threshold": (127, 9, 2.1, 0.004),
    "opt-tree": (118, 22, 2.7, 0.01),
    "ucb": (129, 10, 2.25, 0.006),
    "dqn": (133, 12, 2.4, 0.021),
    "ppo": (139, 9.5, 2.45, 0.018),
}
SECTIONS = [
    "Speed",
    "By domain",
    "Accepted length against tree size",
    "Where the time goes",
    "What the policies do",
    "Some drafted trees",
    "Settings and machine",
    "All numbers",
]


def results_of(
    speeds: dict[str, tuple[float, ...]] = SPEEDS,
    domains: tuple[str, ...] = ("code", "prose", "dialogue"),
    prompts: int = 8,
    learned: tuple[str, ...] = ("ucb", "dqn", "ppo"),
) -> dict:
    """Plausible results; policies gain a little more in some domains than in others."""
    random, rows = np.random.default_rng(0), []
    for place, domain in enumerate(domains):
        for number in range(prompts):
            tokens, hard = int(random.integers(90, 129)), random.lognormal(0.1 * place, 0.15)
            text = random.integers(0, 512, tokens).tolist()
            for name, (rate, drafted, accepted, share) in speeds.items():
                seconds = tokens / rate * hard * random.normal(1 + 0.01 * place, 0.02)
                cycles = round(tokens / (1 + accepted / hard))
                parts = {"draft": 0.3 if drafted else 0.0, "decide": share, "commit": 0.06}
                parts["verify"] = 1 - sum(parts.values())
                rows.append(
                    {
                        "policy": name,
                        "prompt_id": f"{domain}/{number}",
                        "domain": domain,
                        "repeat": 0,
                        "new_tokens": tokens,
                        "seconds": seconds,
                        "cycles": cycles,
                        "drafted": round(cycles * drafted * random.normal(1, 0.05)),
                        "accepted": tokens - cycles if drafted else 0,
                        "output_tokens": list(text),
                        "phases": {key: value * seconds for key, value in parts.items()},
                    }
                )
    settings = {"baseline": "autoregressive", "static": "best-static", "learned": list(learned)}
    settings |= {"pair": "embedded", "temperature": 0.0, "batch_size": 1, "max_new_tokens": 128}
    return {
        "rows": rows,
        "summary": summarise(rows, settings["baseline"], settings["static"], draws=500),
        "machine": {"cpu": "Some CPU @ 2.1 GHz", "torch": "2.11.0", "threads": 1, "commit": "abc"},
        "settings": settings | {"seed": 0},
    }


def with_extras(results: dict, policy: str = "ppo") -> dict:
    """The same with the optional parts."""
    shares = {"plain": [0.5, 0.2, 0.0], "chain 4": [0.4, 0.3, 0.2], "tree 4x16": [0.1, 0.5, 0.8]}
    entries = [
        {"feature": "last accepted share", "bins": [0, 0.25, 0.6, 1], "shares": shares},
        {"feature": "draft entropy", "bins": [0.7, 2.1], "shares": shares},
    ]
    trees = [{"policy": policy, "prompt_id": f"code/{i}", "text": TREE} for i in range(2)]
    oracle = {"tokens_per_second": 152.0, "static": 131.0, "shares": {policy: 0.38}}
    return results | {"decisions": {policy: entries}, "trees": trees, "oracle": oracle}


@pytest.fixture(scope="module")
def full() -> dict:
    return with_extras(results_of())


def page_of(results: dict, folder: Path) -> str:
    """The written page; every section that is there has a body, every tag is closed."""
    write_report(results, folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    checker = Closed()
    checker.feed(page)
    assert not checker.open, f"unclosed: {checker.open}"
    assert "NaN" not in page and "None" not in page and "nan" not in page.split("<body>")[1]
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "ids are given once"
    assert set(" ".join(re.findall(r'aria-labelledby="([^"]*)"', page)).split()) <= set(ids)
    return page


class Closed(HTMLParser):
    """Asserts that tags are closed in the order of their opening."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_the_page_needs_nothing_but_itself(full, tmp_path):
    page = page_of(full, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "://" not in page and "url(" not in page and "@import" not in page
    assert not re.search(r"<(script|link|img|iframe|object|use|image)\b|\s(src|href)=", page)


def test_all_policies_domains_and_sections_appear(full, tmp_path):
    page = page_of(full, tmp_path)
    assert titles(page) == SECTIONS
    for name in [*SPEEDS, "code", "prose", "dialogue", "chain 4", "draft entropy", "Some CPU"]:
        assert name in page
    assert "<b>* ' os'  0.812</b>" in page and "<i>+ 'import'</i>" in page
    assert "└──   ' * '  0.061" in page, "a star in the text is no mark"


def test_sections_without_data_are_left_out(tmp_path):
    page = page_of(results_of(), tmp_path)
    assert titles(page) == [
        s for s in SECTIONS if s not in ("What the policies do", "Some drafted trees")
    ]
    assert "racle" not in page.split("</style>")[1]


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("domains", [("one",), tuple("abcdefghi")])
@pytest.mark.parametrize("prompts", [1, 3])
def test_any_number_of_policies_and_domains(count, domains, prompts, tmp_path):
    speeds = {f"policy {i}": (60 + 5 * i, i, i / 10, 0.01) for i in range(count)}
    results = results_of(speeds, domains, prompts, learned=("policy 3", "policy 7"))
    page = page_of(results, tmp_path)
    assert all(f"policy {i}" in page for i in range(count))
    assert ("By domain" in titles(page)) is False, "the static plan is not there"
    results["settings"] |= {"baseline": "policy 0", "static": "policy 1"}
    page = page_of(results | {"summary": None}, tmp_path)
    assert ("By domain" in titles(page)) == (count > 1)


def test_names_and_texts_are_escaped(tmp_path):
    bad = "</title><script>alert('x')</script>\"&amp; <b {0}"
    speeds = {"autoregressive": SPEEDS["autoregressive"], "best-static": SPEEDS["best-static"]}
    results = with_extras(results_of(speeds | {bad: SPEEDS["ppo"]}, (bad, "d"), 3, (bad,)), bad)
    results["machine"] = {bad: bad}
    results["trees"] = [{"policy": bad, "prompt_id": bad, "text": f"'a'\n├── * {bad}"}]
    results["decisions"] = {bad: [{"feature": bad, "bins": [bad], "shares": {bad: [1.0]}}]}
    page = page_of(results, tmp_path)
    assert "<script" not in page and "<b {" not in page
    assert "&lt;script&gt;" in page and "&quot;&amp;amp;" in page


def test_the_title_says_whether_learning_helped(full):
    learned = ["ucb", "dqn", "ppo"]
    title, lead = headline(full["summary"], learned)
    assert re.fullmatch(r"ppo is \d+\.\d % faster than the best static plan", title)
    assert "excludes 0" in lead and "The fastest policy is ppo" in lead
    slow = {**SPEEDS, "ppo": (126, *SPEEDS["ppo"][1:]), "dqn": (131.0, *SPEEDS["dqn"][1:])}
    title, lead = headline(results_of(slow)["summary"], learned)
    assert title == "No learned policy beats the best static plan"
    assert headline(results_of(slow)["summary"], ["ppo"])[0].startswith("ppo does not beat")
    title, lead = headline(results_of({k: SPEEDS[k] for k in ("ucb", "ppo")})["summary"], learned)
    assert title == "ppo is the fastest policy"
    title, lead = headline(results_of(prompts=1, domains=("one",))["summary"], learned)
    assert title.startswith("No learned policy") and "no interval" in lead


def test_an_interval_around_zero_is_called_one(full):
    summary = copy.deepcopy(full["summary"])
    summary["policies"]["ppo"]["ratio_to_static"] = {"value": 1.03, "low": 0.99, "high": 1.07}
    title, lead = headline(summary, ["ppo"])
    assert title == "ppo does not beat the best static plan"
    assert "+3.0 %, 95 % interval -1.0 to +7.0 %, which includes 0" in lead


def test_different_outputs_are_said_on_top(full, tmp_path):
    results = copy.deepcopy(full)
    changed = next(row for row in results["rows"] if row["policy"] == "dqn")
    changed["output_tokens"][5] += 1
    assert "Outputs are not identical: dqn and autoregressive" in page_of(results, tmp_path)
    assert "Outputs are not identical" not in page_of(full, tmp_path)


def test_tables_are_sorted_and_complete(full):
    summary, oracle = full["summary"], full["oracle"]
    lines = markdown(summary, oracle).splitlines()
    assert lines[2].startswith("| ppo |") and lines[-1].startswith("| autoregressive |")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].endswith("| 38 |") and "oracle" not in markdown(summary)
    for width in (160, 80):  # the last column is there on a usual terminal too
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(summary, oracle))
        shown = console.export_text()
        words = [*SPEEDS, "127.9", "+7.3", "+8.7)", "oracle", "38"]
        assert all(word in shown for word in words)


def test_a_name_cannot_break_the_tables():
    bad = "a|b\n[red]c[/nope]"
    speeds = {"autoregressive": SPEEDS["autoregressive"], bad: SPEEDS["ppo"]}
    summary = results_of(speeds, prompts=2)["summary"]
    assert "| a\\|b [red]c[/nope] |" in markdown(summary)
    Console(quiet=True).print(table(summary))


def test_signs_and_ticks():
    assert [signed(r) for r in (1.0, 1.0004, 0.9996, 1.023, 0.5)] == [
        "0.0 %", "0.0 %", "0.0 %", "+2.3 %", "-50.0 %",
    ]  # fmt: skip
    assert steps(0, 100, 5) == [0, 20, 40, 60, 80, 100]
    assert steps(-3, 2.5, 5) == [-2, 0, 2] and steps(0, 0.31, 3) == pytest.approx([0, 0.2])


def test_bins_are_named_by_their_edges():
    assert bins([0, 0.5, 1], 2) == ["0 to 0.5", "0.5 to 1"]
    assert bins([0.5], 2) == ["below 0.5", "0.5 and more"]
    assert bins(["code", "prose"], 2) == ["code", "prose"]
    assert bins([], 2) == ["bin 1", "bin 2"]


def test_rare_plans_are_drawn_as_one():
    shares = {f"plan {i}": [float(i), None] for i in range(30)}
    (_, first), (_, second) = decision_shares({"feature": "f", "bins": [1], "shares": shares})
    assert len(first) == MOST and "22 other plans" in first
    assert sum(first.values()) == pytest.approx(1) and not any(second.values())


def test_the_command_writes_the_page_again(full, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(full))
    assert main([str(tmp_path)]) == 0
    assert "ppo" in capsys.readouterr().out and (tmp_path / "report.html").is_file()
    assert read_results(tmp_path) == full
    (tmp_path / "results.json").write_text(json.dumps(full | {"summary": {"format": 0}}))
    assert read_results(tmp_path)["summary"]["prompts"] == full["summary"]["prompts"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        '{"rows": []}',
        '{"rows": [{}], "settings": {"baseline": "a", "static": "b"}}',
        "\udcff",
    ],
)
def test_unusable_results_give_one_line(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.json").write_bytes(content.encode(errors="surrogateescape"))
    assert main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and str(tmp_path) in err
    assert not (tmp_path / "report.html").exists()
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_rows_without_time_give_one_line(full, tmp_path, capsys):
    rows = [full["rows"][0] | {"seconds": 0.0}]
    (tmp_path / "results.json").write_text(json.dumps({**full, "rows": rows, "summary": None}))
    assert main([str(tmp_path)]) == 2
    assert "took no time" in capsys.readouterr().err


def chromium(folder: Path, *options: str) -> str:
    """Headless chromium on the folder's report; its output."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        pytest.skip("no chromium is installed")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += [f"--user-data-dir={folder / 'profile'}", *options]
    page = (folder / "report.html").resolve().as_uri()
    done = subprocess.run([program, *quiet, page], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_browser_shows_the_page(full, tmp_path):
    write_report(full, tmp_path / "report.html")
    picture = tmp_path / "shot.png"
    chromium(tmp_path, "--window-size=1200,2000", f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 50_000


@pytest.mark.slow
def test_a_browser_finds_every_section(full, tmp_path):
    write_report(full, tmp_path / "report.html")
    page = chromium(tmp_path, "--dump-dom")
    assert titles(page) == SECTIONS
    assert page.count("<svg") == (tmp_path / "report.html").read_text().count("<svg")
