# -*- test-case-name: mailgate.test.test_docstrings -*-
"""
Docstrings of public classes and functions describe arguments, fields and exceptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.imports import trees

FRAMEWORK = frozenset({"AssertionError", "AttributeError", "NotImplementedError"})
"""Exceptions that a public function may raise without documenting them: mistakes of the calling program."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def missing(tree: ast.Module) -> Iterator[str]:
    """
    Yield what docstrings of the public classes and functions of C{tree} lack: C{Class: field}, C{function: argument},
    C{function: @raise Error}. docs/directives.rst describes settings classes. A function without a docstring implements
    an interface, whose docstring counts.
    """
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _ofClass(node)
        elif isinstance(node, Function):
            yield from _ofFunction(node, "")


def _ofClass(node: ast.ClassDef) -> Iterator[str]:
    said = ast.get_docstring(node) or ""
    names = _fields(node)
    for each in node.body:
        if isinstance(each, Function) and each.name == "__init__":
            said += ast.get_docstring(each) or ""
            names += _arguments(each)
        elif isinstance(each, Function):
            yield from _ofFunction(each, f"{node.name}.")
    if not node.name.endswith("Settings"):
        yield from (f"{node.name}: {name}" for name in _unnamed(names, said))


def _ofFunction(node: Function, owner: str) -> Iterator[str]:
    said = ast.get_docstring(node)
    if node.name.startswith("_") or said is None:
        return
    yield from (f"{owner}{node.name}: {name}" for name in _unnamed(_arguments(node), said))
    raised = {ast.unparse(_called(each.exc)) for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc}
    for name in sorted(raised - FRAMEWORK):
        if name[0].isupper() and name not in said:
            yield f"{owner}{node.name}: @raise {name}"


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _fields(node: ast.ClassDef) -> list[str]:
    """The public fields of an attrs class, which its constructor takes."""
    if not any(ast.unparse(_called(each)) in ("frozen", "define") for each in node.decorator_list):
        return []
    declared = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    fields = [each.target for each in declared if "ClassVar" not in ast.unparse(each.annotation)]
    return [each.id for each in fields if isinstance(each, ast.Name) and not each.id.startswith("_")]


def _arguments(node: Function) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [each.arg for each in arguments if each.arg not in ("self", "cls") and not each.arg.startswith("_")]


def _unnamed(names: list[str], said: str) -> list[str]:
    forms = r"@(?:param|ivar|cvar) {0}:|[CL]\{{[^}}]*\b{0}\b"
    return [name for name in names if not re.search(forms.format(re.escape(name)), said)]


class DocstringTests(SynchronousTestCase):
    """All public docstrings."""

    def test_complete(self) -> None:
        """Each names the arguments, the fields and the exceptions."""
        found = {name: list(missing(tree)) for name, tree in trees().items()}
        self.assertEqual({name: gaps for name, gaps in found.items() if gaps}, {})

    def test_missing(self) -> None:
        """Gaps in public docstrings are found; private functions and implementations of interfaces may have gaps."""
        code = """
@frozen
class Point:
    "@ivar x: from the left."
    x: int
    y: int
    _z: int = 0

    def move(self, by, to):
        "By C{by}."
        raise ValueError(by)

    def _hide(self, what):
        "Hide."

    def resumeProducing(self, now): pass

class FooSettings:
    def __init__(self, x): pass

def load(path, *, encoding):
    '''
    @param path: a path.
    @raise OSError: it is not there.
    '''
    raise OSError(path)
"""
        expected = ["Point.move: to", "Point.move: @raise ValueError", "Point: y", "load: encoding"]
        self.assertEqual(list(missing(ast.parse(code))), expected)
