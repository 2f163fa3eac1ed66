"""The tables, the words and the command of a report, on made-up results."""

from __future__ import annotations

import copy
import io
import json
import re

import pytest
from benches import PROMPTS, bench
from results import SPEEDS, results_of, with_extras
from rich.console import Console

from harness.evaluation import evaluate
from reports import markdown, read_results, table
from reports.__main__ import main
from reports.decisions import MOST, bins, decision_shares
from reports.svg import steps
from reports.words import headline, signed
from spec_core import AUTOREGRESSIVE, Fixed, Plan


@pytest.fixture(scope="module")
def full() -> dict:
    return with_extras(results_of())


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


def test_tables_are_sorted_and_complete(full):
    summary, oracle = full["summary"], full["oracle"]
    lines = markdown(summary, oracle).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    behind = [line for line in lines if line.startswith("| in hindsight: ")]
    assert behind == lines[2:6] and "| +2.0 |" in behind[2]
    assert behind[0].startswith("| in hindsight: the oracle") and behind[0].endswith("| 100 |")
    assert lines[6].startswith("| ppo |") and lines[-1].startswith("| autoregressive |")
    assert lines[6].endswith("| 38 |") and "oracle" not in markdown(summary)
    for width in (160, 80):  # the last column is there on a usual terminal too
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(summary, oracle))
        shown = console.export_text()
        words = [*SPEEDS, "127.9", "+7.3", "+8.7)", "oracle", "38"]
        assert all(word in shown for word in words)
        caption = " ".join(shown.split())
        for said in ("each domain 133.6 (+2.0 %)", "prompt 137.6 (+5.0 %)", "152.0 (+16.0 %)"):
            assert said in caption
    console.print(table(summary))
    assert "hindsight" not in console.export_text()


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


@pytest.mark.parametrize("batch", [1, 2])
def test_the_command_reads_what_an_evaluation_writes(batch, tmp_path, capsys):
    policies = {"autoregressive": Fixed(AUTOREGRESSIVE), "best_static": Fixed(Plan(2))}
    found = evaluate(bench(batch_size=batch), policies, PROMPTS[:3])
    settings = {"baseline": "autoregressive", "static": "best_static"}
    (tmp_path / "results.json").write_text(json.dumps({"settings": settings, **found}))
    assert main([str(tmp_path)]) == 0, capsys.readouterr().err


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
