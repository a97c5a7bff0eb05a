# -*- test-case-name: mailgate.test.test_codetables -*-
"""
The parts of documents that are made from tables of the code: the metrics in docs/observing.rst, and the endpoints of
the admin server in docs/admin_api.rst. C{python -m mailgate.test.support.codetables} writes them.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from mailgate.keeper.admin.endpoints import ENDPOINTS, Endpoint
from mailgate.test.support.documents import ROOT, document
from mailgate.watch.metrics import METRICS, Kind, Metric

__all__ = ["PARTS", "exampleOf", "metricRows", "rendered"]

_WIDTH = 108
"""Columns of an example."""


def exportedName(metric: Metric) -> str:
    """The name of C{metric} at Prometheus."""
    return f"{metric.name}_total" if metric.kind is Kind.COUNTER else metric.name


def metricRows() -> Iterator[str]:
    """Yield the table of metrics."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 42 10 28 20", "")
    rows = [("Metric", "Type", "What it counts or measures", "Labels")]
    for metric in METRICS:
        labels = ", ".join(f"``{label}``" for label in metric.labels)
        rows.append((f"``{exportedName(metric)}``", metric.kind.value, metric.help, labels))
    for row in rows:
        for place, cell in enumerate(row):
            mark = "* -" if place == 0 else "  -"
            lines = textwrap.wrap(cell, 110, break_long_words=False, break_on_hyphens=False)
            yield f"   {mark} {lines[0]}" if lines else f"   {mark}"
            yield from (f"       {line}" for line in lines[1:])


def _json(value: Any, indent: int = 0) -> str:
    """C{value} as JSON, with a line for each element of what is too long for one."""
    flat = json.dumps(value)
    if len(flat) + indent <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_json(each, indent + 2 + len(key) + 4)}" for key, each in value.items()]
        # A nested value that takes several lines is indented by its own depth alone.
        parts = [
            f"{json.dumps(key)}: {_json(each, indent + 2)}" if "\n" in part else part
            for part, (key, each) in zip(parts, value.items(), strict=True)
        ]
        return "{\n" + ",\n".join(pad + part for part in parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _json(each, indent + 2) for each in value) + "\n" + " " * indent + "]"


def exampleOf(endpoint: Endpoint) -> str:
    """The example of a request and its answer."""
    command = f"curl --unix-socket $ADMIN http://localhost{endpoint.asks or endpoint.path}"
    if endpoint.method != "GET":
        body = "{}" if endpoint.body is None else json.dumps(endpoint.body)
        method = "" if endpoint.method == "POST" else f" -X {endpoint.method}"
        command += f"{method} \\\n    -H 'Content-Type: application/json' -d '{body}'"
    command = re.sub(r"(http://\S*[?&]\S*)", r"'\1'", command)
    answer = endpoint.example if isinstance(endpoint.example, str) else _json(endpoint.example)
    return f"$ {command}\n{answer.rstrip()}\n"


def endpointSections() -> Iterator[str]:
    """Yield a section for each endpoint."""
    for endpoint in ENDPOINTS:
        title = f"{endpoint.method} {endpoint.path}"
        yield from (title, "~" * len(title), "")
        level = "No token is needed" if endpoint.level.word == "none" else f"Level ``{endpoint.level.word}``"
        summary = f"{level}. {endpoint.summary[0].upper()}{endpoint.summary[1:]}."
        yield from textwrap.wrap(summary, 118, break_long_words=False, break_on_hyphens=False)
        yield ""
        if endpoint.parameters:
            yield from (".. list-table::", "   :header-rows: 1", "   :widths: 15 15 70", "")
            yield from ("   * - Parameter", "     - Kind", "     - Meaning")
            for parameter in endpoint.parameters:
                required = "; required" if parameter.isRequired else ""
                yield f"   * - ``{parameter.name}``"
                yield f"     - {_KINDS[parameter.kind]}"
                yield f"     - {parameter.help[0].upper()}{parameter.help[1:].replace('*', chr(92) + '*')}{required}"
            yield ""
        yield from ("::", "")
        yield from (f"    {line}".rstrip() for line in exampleOf(endpoint).splitlines())
        yield ""


_KINDS = {str: "text", float: "number", int: "whole number", bool: "true or false"}

PARTS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "metrics": ("observing.rst", metricRows),
    "endpoints": ("admin_api.rst", endpointSections),
}
"""The document of each part, and what makes its lines."""


def _marks(part: str) -> tuple[str, str]:
    return f".. {part} begin: python -m mailgate.test.support.codetables\n", f".. {part} end\n"


def rendered(part: str) -> str:
    """The document of C{part}, with the part as the code has it."""
    name, lines = PARTS[part]
    begin, end = _marks(part)
    before, _, rest = document("docs", name).partition(begin)
    _, _, after = rest.partition(end)
    text = "\n".join(lines()).strip("\n")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def main() -> None:
    """Write all parts."""
    for part, (name, _) in PARTS.items():
        text = rendered(part)
        with open(os.path.join(ROOT, "docs", name), "w", encoding="utf-8") as opened:
            opened.write(text)


if __name__ == "__main__":
    main()
