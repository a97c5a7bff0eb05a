"""
Each C{L{...}} of a docstring leads to an object, by its full name or by a name that its module or a class there has.
"""

from __future__ import annotations

import builtins
import inspect
import re
from typing import Any

from attrs import fields_dict, has
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.imports import paths


def leads(scope: Any, name: str) -> bool:
    """Whether C{name} exists in C{scope}, part by part. Fields and annotated names count."""
    first, _, rest = name.partition(".")
    if rest:
        return leads(getattr(scope, first, None), rest)
    fields = fields_dict(scope) if isinstance(scope, type) and has(scope) else getattr(scope, "__annotations__", {})
    return hasattr(scope, first) or first in fields or (hasattr(scope, "namesAndDescriptions") and first in scope)


def isWhole(name: str) -> bool:
    """Whether C{name} begins with the name of a module, and exists there."""
    scope, _, last = name.rpartition(".")
    try:
        namedAny(name)
        return True
    except Exception:
        return bool(scope) and isWhole(scope) and leads(namedAny(scope), last)


def dead(module: str, source: str) -> list[str]:
    """The references in the C{source} of C{module} that lead nowhere."""
    loaded = namedAny(module)
    scopes = [loaded, builtins, *filter(inspect.isclass, vars(loaded).values())]
    names = re.findall(r"L\{(?:[^{}<]*<)?([\w.]+)>?\}", source)
    return [name for name in names if not (any(leads(scope, name) for scope in scopes) or isWhole(name))]


class ReferenceTests(SynchronousTestCase):
    """References in the product's docstrings."""

    def test_lead(self) -> None:
        """Each leads to an object, so that outdated references are found."""
        found: dict[str, list[str]] = {}
        for name, path in paths():
            module = name if name == "mailgate" else f"mailgate.{name}"
            with open(path, encoding="utf-8") as source:
                found[module] = dead(module, source.read())
        self.assertEqual({module: names for module, names in found.items() if names}, {})

    def test_dead(self) -> None:
        """A missing name, and one that the module does not have, are reported."""
        text = "L{Gateway} L{Gateway.cut} L{mailgate.session.Session.expires} L{login<mailgate.login>}"
        gone = ["mailgate.login.Fact", "mailgate.server", "ServerTLS.gone", "printable"]
        self.assertEqual(dead("mailgate.service", text + "".join(f" L{{{name}}}" for name in gone)), gone)
