"""What a run has shown: statistics of its rows, a table, one HTML page; runs no models."""

from reports.html import write_report
from reports.results import Unreadable, read_results, summary_of
from reports.statistics import (
    Differs,
    check_lossless,
    probability_of_improvement,
    summarise,
    tokens_per_second,
)
from reports.table import markdown, table

__all__ = [
    "Differs",
    "Unreadable",
    "check_lossless",
    "markdown",
    "probability_of_improvement",
    "read_results",
    "summarise",
    "summary_of",
    "table",
    "tokens_per_second",
    "write_report",
]
