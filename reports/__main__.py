"""python -m reports RUN_FOLDER: makes report.html anew and prints the table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from reports.html import write_report
from reports.results import Unreadable, read_results
from reports.table import table


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 2 where the folder has no usable results."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder, with results.json in it")
    folder = parser.parse_args(arguments).folder
    try:
        results = read_results(folder)
        write_report(results, folder / "report.html")
    except (Unreadable, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    Console().print(table(results["summary"], results.get("oracle")))
    print(f"report: {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
