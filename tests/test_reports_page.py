"""The page of a run, on made-up results; the last tests open it in a browser."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from results import SPEEDS, results_of, with_extras

from reports import write_report
from reports.words import hindsight

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
    words = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "the best plan of each domain 133.6 (+2.0 %), of each prompt 137.6 (+5.0 %)" in words
    assert "<b>* ' os'  0.812</b>" in page and "<i>+ 'import'</i>" in page
    assert "└──   ' * '  0.061" in page, "a star in the text is no mark"


def column(page: str, caption: str, name: str) -> dict[str, str]:
    """A column of a table, by the headings of its lines."""
    inner = page.split(f"<caption>{caption}</caption>")[1].split("</table>")[0]
    place = re.findall(r'<th scope="col">(.*?)</th>', inner).index(name) - 1
    lines = re.findall(r'<tr><th scope="row"[^>]*>(.*?)</th>(.*?)</tr>', inner)
    return {line: re.findall("<td>(.*?)</td>", cells)[place] for line, cells in lines}


def test_the_oracle_is_there_by_policy_on_top_and_in_hindsight(full, tmp_path):
    results = copy.deepcopy(full)
    shares = {name: (place - 3) / 10 for place, name in enumerate(SPEEDS)}
    said = {name: f"{10 * (place - 3)} %" for place, name in enumerate(SPEEDS)}
    del shares["ucb"]
    results["oracle"]["shares"] = shares
    page = page_of(results, tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    assert column(page, "By policy", "oracle gap closed") == said | {"ucb": "-"}
    assert f"<dt>of the gap to the oracle closed</dt><dd>{said['ppo']}</dd>" in page
    line = hindsight(results["oracle"])
    assert f'<p class="note">{line}</p>' in page and "one plan for all 131.0 (+0.0 %)" in line
    assert line.endswith("the oracle, at every position 152.0 (+16.0 %).")


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


def test_different_outputs_are_said_on_top(full, tmp_path):
    results = copy.deepcopy(full)
    changed = next(row for row in results["rows"] if row["policy"] == "dqn")
    changed["output_tokens"][5] += 1
    assert "Outputs are not identical: dqn and autoregressive" in page_of(results, tmp_path)
    assert "Outputs are not identical" not in page_of(full, tmp_path)


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
