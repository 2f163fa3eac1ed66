"""The pages in docs: features stand there as they are in the code, and snippets are Python."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from spec_core.features import FEATURES, LEVEL_FEATURES, TREE_FEATURES, VERSION

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PAGE = (DOCS / "features.md").read_text()
HEAD = ("name", "known", "meaning")
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)


def tables(page: str) -> list[list[tuple[str, ...]]]:
    """The cells of every table, without code marks; its head first, then what is below the rule."""
    found = []
    for inside, lines in groupby(page.splitlines(), lambda line: line.startswith("|")):
        if inside:
            rows = [tuple(c.strip().strip("`") for c in line[1:-1].split("|")) for line in lines]
            found.append([rows[0], *rows[2:]])
    return found


def test_the_features_are_those_of_the_code():
    written = [rows for head, *rows in tables(PAGE) if head == HEAD]
    groups = FEATURES, LEVEL_FEATURES, TREE_FEATURES
    assert written == [[(f.name, f.known, f.meaning) for f in group] for group in groups]


def test_every_tag_is_explained():
    (tags,) = [rows for head, *rows in tables(PAGE) if head == ("tag", "known")]
    known = [feature.known for feature in (*FEATURES, *LEVEL_FEATURES, *TREE_FEATURES)]
    assert [tag for tag, _ in tags] == list(dict.fromkeys(known))


def test_version_and_count_are_those_of_the_code():
    assert re.findall(r"\*\*version (\d+)\*\*", PAGE) == [str(VERSION)]
    assert f"sees {len(FEATURES)} numbers" in PAGE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_are_python(page):
    for snippet in SNIPPET.findall(page.read_text()):
        compile(snippet, page.name, "exec")
