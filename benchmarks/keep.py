"""Keep a run's comparison among the committed results: figures and seconds, without the texts."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from benchmarks.common import RESULTS

ROW = ("policy", "prompt_id", "domain", "repeat", "new_tokens", "seconds", "cycles")
LEFT_OUT = ("trees", "decisions", "rows")


def short(command: str) -> str:
    """The command with the last two parts of absolute paths only."""
    return re.sub(r"(?:/[\w.-]+)+?/([\w.-]+/[\w.-]+)(?=[,\]' ]|$)", r"\1", command)


def kept(results: dict) -> dict:
    """What is committed of results.json."""
    rows = [[row[name] for name in ROW] for row in results["rows"]]
    rest = {name: part for name, part in results.items() if name not in LEFT_OUT}
    rest["machine"]["command"] = short(rest["machine"]["command"])
    return {**rest, "columns": ROW, "rows": [[*r[:5], round(r[5], 6), r[6]] for r in rows]}


def main() -> None:
    """Write results/<name>.json from a run folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder with results.json")
    parser.add_argument("name", help="of the file in benchmarks/results")
    options = parser.parse_args()
    content = kept(json.loads((options.run / "results.json").read_text()))
    rows = ",\n  ".join(json.dumps(row) for row in content.pop("rows"))
    text = json.dumps(content, indent=1)[:-2] + f',\n "rows": [\n  {rows}\n ]\n}}\n'
    file = RESULTS / f"{options.name}.json"
    file.write_text(text)
    print(f"wrote {file.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
