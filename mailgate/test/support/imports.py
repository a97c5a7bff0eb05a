"""
Reads from the sources which module of mailgate imports which. Imports under C{if TYPE_CHECKING:} and in functions
count.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Set
from functools import cache

import mailgate

__all__ = ["imported", "modules", "packageOf", "trees"]

ROOT = os.path.dirname(os.path.abspath(mailgate.__file__))


def shortName(module: str) -> str:
    """Return the name of C{module} without C{mailgate.}; the package itself keeps its name."""
    return module.removeprefix("mailgate.")


def packageOf(module: str) -> str:
    """
    Return the package or module directly below C{mailgate} that contains the module with the short name C{module}.
    """
    return module.partition(".")[0]


def paths() -> Iterator[tuple[str, str]]:
    """Yield the short name and the path of each module outside of the tests."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("test", "__pycache__")]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                parts = os.path.relpath(path, os.path.dirname(ROOT)).removesuffix(".py").split(os.sep)
                yield shortName(".".join(parts[:-1] if parts[-1] == "__init__" else parts)), path


@cache
def trees() -> dict[str, ast.Module]:
    """Return the parsed source of each module outside of the tests, by its short name. Each is parsed once."""
    found = {}
    for name, path in paths():
        with open(path, encoding="utf-8") as source:
            found[name] = ast.parse(source.read())
    return found


@cache
def modules() -> dict[str, frozenset[str]]:
    """Return which modules of mailgate each module outside of the tests imports, as short names."""
    parsed = trees()
    return {name: frozenset(imported(tree, parsed.keys())) for name, tree in parsed.items()}


def imported(tree: ast.Module, known: Set[str]) -> set[str]:
    """Return the short names of the modules of mailgate that C{tree} imports. C{known} are the names of all modules."""
    found: set[str] = set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "relative imports hide what they import"
            module = statement.module or ""
            within = [f"{module}.{alias.name}" for alias in statement.names]
            names = [name if shortName(name) in known else module for name in within]
        else:
            continue
        found.update(shortName(name) for name in names if name.split(".")[0] == "mailgate")
    return found
