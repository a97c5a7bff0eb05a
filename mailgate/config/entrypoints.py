# -*- test-case-name: mailgate.test.config.test_outside -*-
"""
Kinds of authenticator that other distributions bring, found by entry points of the group L{GROUP}.

The name of an entry point is the directive that chooses its kind, so that only what a configuration writes is imported.
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
"""The words of the sections where directives of authenticators may stand."""


class BrokenEntryPoint(Exception):
    """An entry point gives no kind of authenticator that can be used. The text names it, and says why, in one line."""


@cache
def _table() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points by their names."""
    # Most configurations need none, and the import takes as long as all of the reading.
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def installed(anew: bool = False) -> Collection[str]:
    """
    The names of the entry points. They are read once in a process, and C{anew} where a name is missing: a distribution
    may have been installed since.
    """
    if anew:
        _table.cache_clear()
    return _table().keys()


def findKind(name: str, known: Collection[str]) -> AuthenticatorKind:
    """
    The kind of the entry point C{name}, which is one of L{installed}; C{known} are the names of the directives that
    there are already.

    @raise BrokenEntryPoint: it gives none.
    """
    entry, *others = _table()[name]
    if others:
        places = " and ".join(sorted(_distribution(each) for each in (entry, *others)))
        raise BrokenEntryPoint(f"is an entry point of {places}: uninstall one of them")
    try:
        kind = entry.load()
    except (Exception, SystemExit) as error:
        # Any module can fail in any way, a script by ending the process; an operator has no use for its traceback.
        raise _broken(entry, f"cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}") from None
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
    """Why C{kind} cannot be what the directive C{name} chooses; empty where it can."""
    if not isinstance(kind, AuthenticatorKind):
        return f"names a value of type {type(kind).__name__}, and no mailgate.interfaces.AuthenticatorKind"
    if kind.directive != name:
        return f"is named for another directive than its kind, which has {kind.directive}"
    if kind.name in [own.name for own in AUTHENTICATORS]:
        return f"gives a kind with the name {kind.name}, which is one of mailgate's own"
    if not (isinstance(kind.settings, type) and has(kind.settings)):
        return "gives a kind whose settings are no attrs class"
    if name not in [declared.name for declared in directives(kind.settings)]:
        return f"gives a kind whose settings do not declare {name}"
    if not kind.methods or not all(isinstance(method, Method) for method in kind.methods):
        return "gives a kind whose methods are no set of mailgate.login.Method"
    return ""


def undeclarable(kind: AuthenticatorKind, known: Collection[str]) -> str:
    """Why the directives of C{kind} cannot be added to those C{known}; empty where they can."""
    for declared in directives(kind.settings):
        if declared.name in known:
            return f"declares the directive {declared.name}, which there is already"
        if declared.only and declared.only not in JUDGED:
            return f"declares {declared.name} for other sections than [mail] and [server NAME]"
    return ""
