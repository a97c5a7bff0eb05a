"""
Draws the packages of mailgate from their imports, and the phases of a session from its table of moves, and writes both
pictures into docs/architecture.rst: C{python -m mailgate.test.support.picture}.
"""

from __future__ import annotations

import os

from mailgate.session import TRANSITIONS, Phase
from mailgate.test.support.imports import ROOT, modules, packageOf

__all__ = ["BEGIN", "END", "MOVES", "PATH", "inserted", "moves", "picture"]

PATH = os.path.join(os.path.dirname(ROOT), "docs", "architecture.rst")
BEGIN = ".. The picture begins: python -m mailgate.test.support.picture draws it from the imports.\n"
MOVES = ".. The picture begins: python -m mailgate.test.support.picture draws it from the table of moves.\n"
END = ".. The picture ends.\n"

_NOT_DRAWN = frozenset({"mailgate", "_version", "testing", "listensockets", "zygote"})
"""The package itself, and modules that are no part of a running gateway or another name of one."""


def graph() -> dict[str, set[str]]:
    """Return what each package, or module in no package, imports."""
    found: dict[str, set[str]] = {}
    for name, others in modules().items():
        package = packageOf(name)
        if package not in _NOT_DRAWN:
            found.setdefault(package, set()).update(map(packageOf, others))
    return {package: others - _NOT_DRAWN - {package} for package, others in found.items()}


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """
    Sort the packages into rows from the bottom up. Each is one row above the highest package that it imports.

    @raise ValueError: the imports are circular.
    """
    rows: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(imports):
        row = sorted(package for package, others in imports.items() if package not in placed and others <= placed)
        if not row:
            raise ValueError(f"a circle among {' '.join(sorted(imports.keys() - placed))}")
        rows.append(row)
        placed.update(row)
    return rows


def reachable(imports: dict[str, set[str]], package: str) -> set[str]:
    """Return all packages that C{package} imports, directly or indirectly."""
    found: set[str] = set()
    waiting = list(imports[package])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting.extend(imports[other])
    return found


def nearest(imports: dict[str, set[str]], package: str) -> list[str]:
    """Return the imports of C{package} that none of its other imports also imports."""
    others = imports[package]
    return sorted(other for other in others if not any(other in reachable(imports, each) for each in others))


def picture() -> str:
    """Return the rows, the highest first: each package with its nearest imports."""
    imports = graph()
    width = max(map(len, imports))
    lines = []
    for row in reversed(floors(imports)):
        for package in row:
            below = ", ".join(nearest(imports, package))
            lines.append(f"    {package:<{width}} ─► {below}" if below else f"    {package}")
        lines.append("")
    return "::\n\n" + "\n".join(lines)


def moves() -> str:
    """Return the phases in order, each with those that may follow it."""
    width = max(len(phase.value) for phase in Phase)
    lines = []
    for phase in Phase:
        later = ", ".join(other.value for other in Phase if other in TRANSITIONS[phase])
        lines.append(f"    {phase.value:<{width}} ─► {later}\n" if later else f"    {phase.value}\n")
    return "::\n\n" + "".join(lines)


def inserted(document: str) -> str:
    """
    Return C{document} with both current pictures between their marks.

    @raise ValueError: the marks are missing.
    """
    for begin, draw in ((BEGIN, picture), (MOVES, moves)):
        head, found, rest = document.partition(begin)
        _, ended, tail = rest.partition(END)
        if not (found and ended):
            raise ValueError("the marks of the picture are missing")
        document = f"{head}{begin}\n{draw()}\n{END}{tail}"
    return document


def main() -> None:
    """Write the pictures into the document."""
    with open(PATH, encoding="utf-8") as opened:
        document = inserted(opened.read())
    with open(PATH, "w", encoding="utf-8") as opened:
        opened.write(document)


if __name__ == "__main__":
    main()
