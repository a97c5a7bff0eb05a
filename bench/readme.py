# -*- test-case-name: bench.test.test_readme -*-
"""
C{python -m bench.readme}: shows the newest report in README.rst, and lists all reports in bench/README.rst.

README has the report's summary and its picture. A report is newer than another if its name is greater: names begin with
the day. Reports of a mailgate with lines of C{--set} are listed, but README shows what mailgate is by default.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from bench.options import REPOSITORY
from bench.results import OURS

__all__ = ["SET", "listing", "main", "newestReport", "reports", "shown", "summaryOf"]

SET = f"{OURS}, set"
"""The fact of a report that has the lines of C{--set} and C{--set-process}."""

_RESULTS = os.path.join(REPOSITORY, "bench", "results")


def reports(folder: str = _RESULTS) -> list[str]:
    """The names of all reports, without the ends of their files, the oldest first."""
    return sorted(name.removesuffix(".rst") for name in os.listdir(folder) if re.match(r"\d{4}-.*\.rst\Z", name))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def _dataOf(folder: str, name: str) -> Any:
    return json.loads(_read(os.path.join(folder, f"{name}.json")))


def newestReport(folder: str = _RESULTS) -> str:
    """The name of the newest report of a mailgate without further lines."""
    return next(name for name in reversed(reports(folder)) if SET not in _dataOf(folder, name)["facts"])


def summaryOf(report: str) -> str:
    """The table with a few rows in the text of a report."""
    return report[report.index("\n\n.. table::") : report.index("\n\n:machine:")].strip()


def shown(readme: str, name: str, summary: str) -> str:
    """README with the summary of the report C{name}, its picture, and a link to it."""
    readme = re.sub(r"bench/results/\S+-summary\.png", f"bench/results/{name}-summary.png", readme)
    readme = re.sub(r"<bench/results/\S+\.rst>", f"<bench/results/{name}.rst>", readme)
    start, end = readme.index("\n\n", readme.index("-summary.png\n")), readme.index("\n\n`The whole report")
    return f"{readme[:start]}\n\n{summary}{readme[end:]}"


def listing(folder: str = _RESULTS) -> str:
    """A list of all reports with their machines and the lines of C{--set}, the newest first."""
    lines = []
    for name in reversed(reports(folder)):
        data = _dataOf(folder, name)
        lines.append(f"* `{name[:10]} <results/{name}.rst>`_: {data['machine']}")
        if SET in data["facts"]:
            lines.append(f"  (``{data['facts'][SET]}``)")
    return "\n".join(lines)


def _listed(readme: str, newest: str, lines: str) -> str:
    readme = re.sub(r"`Newest report <results/\S+\.rst>`_", f"`Newest report <results/{newest}.rst>`_", readme)
    first = readme.index("* `20")
    return readme[:first] + lines + readme[readme.index("\n\n", first) :]


def _rewrite(parts: Sequence[str], text: str) -> None:
    with open(os.path.join(REPOSITORY, *parts), "w", encoding="utf-8") as stream:
        stream.write(text)


def main() -> None:
    """Rewrite both files."""
    newest = newestReport()
    summary = summaryOf(_read(os.path.join(_RESULTS, f"{newest}.rst")))
    _rewrite(["README.rst"], shown(_read(os.path.join(REPOSITORY, "README.rst")), newest, summary))
    ours = ["bench", "README.rst"]
    _rewrite(ours, _listed(_read(os.path.join(REPOSITORY, *ours)), newest, listing()))


if __name__ == "__main__":
    main()
