"""The shop window: tables are what the results say, and the code in it runs."""

import json
import re

import pytest

from benchmarks import tables

TEXT = tables.README.read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_tables_are_what_the_results_say() -> None:
    assert tables.filled(TEXT) == TEXT, "run python -m benchmarks.tables"


@pytest.mark.parametrize("file", sorted(tables.RESULTS.glob("*.json")), ids=lambda f: f.name)
def test_results_name_machine_commit_and_command(file) -> None:
    machine = json.loads(file.read_text())["machine"]
    assert all(machine[key] for key in ("cpu", "torch", "commit", "command"))


def test_the_policy_of_the_readme_runs(capsys) -> None:
    (snippet,) = [s for s in SNIPPETS if "class Cautious" in s]
    exec(snippet, {})
    assert float(capsys.readouterr().out) > 0


def test_snippets_are_python() -> None:
    for snippet in SNIPPETS:
        compile(snippet, "README.md", "exec")
