# -*- test-case-name: mailgate.test.config.test_outside -*-
"""
Kinds of authenticator from other distributions, found by entry points of the group L{GROUP}.

The name of an entry point is the directive that selects its kind. Only the kinds that a configuration selects are
imported.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from attrs import has

from mailgate.directives import directives
from mailgate.interfaces import AuthenticatorKind
from mailgate.login import Method
from mailgate.registry import AUTHENTICATORS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "JUDGED", "BrokenEntryPoint", "findKind", "installed", "undeclarable"]

GROUP = "mailgate.authenticators"

JUDGED = ("mail", "server")
"""The words of the sections that accept directives of authenticators."""


class BrokenEntryPoint(Exception):
    """An entry point provides no usable kind of authenticator. The text is one line: the entry point and the reason."""


@cache
def _table() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points by their names."""
    # Most configurations need no entry points, and this import takes as long as reading the whole file.
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def installed(anew: bool = False) -> Collection[str]:
    """
    The names of the entry points. A process reads them once and keeps them.

    @param anew: read them again. Callers set it when a name is missing, because a distribution may have been installed
        in the meantime.
    """
    if anew:
        _table.cache_clear()
    return _table().keys()


def findKind(name: str, known: Collection[str]) -> AuthenticatorKind:
    """
    Import and check the kind of an entry point.

    @param name: the name of the entry point, one of L{installed}.
    @param known: the names of the directives that exist already.
    @raise BrokenEntryPoint: the entry point provides no usable kind.
    """
    entry, *others = _table()[name]
    if others:
        places = " and ".join(sorted(_distribution(each) for each in (entry, *others)))
        raise BrokenEntryPoint(f"is an authenticator of {places}; uninstall all of these packages but one")
    try:
        kind = entry.load()
    except (Exception, SystemExit) as error:
        # A module can raise anything, and a script may call sys.exit. An operator cannot use its traceback.
        raise _broken(entry, f"cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}") from None
    fault = _fault(kind, name) or undeclarable(kind, known)
    if fault:
        raise _broken(entry, fault)
    found: AuthenticatorKind = kind
    return found


def _distribution(entry: EntryPoint) -> str:
    return "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _broken(entry: EntryPoint, reason: str) -> BrokenEntryPoint:
    return BrokenEntryPoint(f'the entry point "{entry.name} = {entry.value}" of {_distribution(entry)} {reason}')


def _fault(kind: object, name: str) -> str:
    """Why the directive C{name} cannot select C{kind}; empty if it can."""
    if not isinstance(kind, AuthenticatorKind):
        return f"names a value of type {type(kind).__name__}, not a mailgate.interfaces.AuthenticatorKind"
    if kind.directive != name:
        return f"must have the name of the directive of its kind, which is {kind.directive}"
    if kind.name in [own.name for own in AUTHENTICATORS]:
        return f"provides a kind named {kind.name}, which is the name of a built-in kind"
    if not (isinstance(kind.settings, type) and has(kind.settings)):
        return "provides a kind whose settings are not an attrs class"
    if name not in [declared.name for declared in directives(kind.settings)]:
        return f"provides a kind whose settings do not declare the directive {name}"
    if not kind.methods or not all(isinstance(method, Method) for method in kind.methods):
        return "provides a kind whose methods are not a set of mailgate.login.Method"
    return ""


def undeclarable(kind: AuthenticatorKind, known: Collection[str]) -> str:
    """
    Why the directives of a kind cannot be added to the existing ones; empty if they can.

    @param kind: the kind of authenticator.
    @param known: the names of the directives that exist already.
    """
    for declared in directives(kind.settings):
        if declared.name in known:
            return f"declares the directive {declared.name}, which exists already"
        if declared.only and declared.only not in JUDGED:
            return f"declares {declared.name} for a section other than [mail] and [server NAME]"
    return ""
