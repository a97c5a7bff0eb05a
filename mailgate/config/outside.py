# -*- test-case-name: mailgate.test.config.test_outside -*-
"""
Authenticators from outside: those that an application hands over by the names of servers, and those of other
distributions (L{mailgate.config.entrypoints}).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from attrs import evolve, frozen

from mailgate.config.entrypoints import JUDGED, BrokenEntryPoint, findKind, installed, undeclarable
from mailgate.config.serverchecks import judgedBy, kindFaults
from mailgate.directives import ConfigurationError, Problem, SectionKind, ServerSettings, directives, nearest
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, methodsOf
from mailgate.registry import AUTHENTICATORS, SERVER_SETTINGS

__all__ = ["HASTY", "Authenticators", "Outside", "handOver", "kindOf"]

Authenticators: TypeAlias = Mapping[str, "AuthenticatorKind | IAuthenticator"]
"""Authenticators, or kinds of which a gateway makes its own, by the names of the servers whose logins they judge."""

HASTY = "imports the reactor when it is imported itself, which is too early for workers that are yet to be forked"
"""What is wrong with an authenticator of another distribution that cannot be used with workers."""

_REACTOR = "twisted.internet.reactor"
_WRITTEN = re.compile(r"^[ \t]*([a-z][a-z0-9_]*)[ \t]*=", re.MULTILINE)
"""What may be an option. A line of a value that looks like one costs a look at the entry points."""


@frozen
class _NoSettings:
    """The settings of an authenticator that the application has configured."""


def kindOf(authenticator: AuthenticatorKind | IAuthenticator) -> AuthenticatorKind:
    """
    C{authenticator} as a kind. One that is made already stays the application's to close. It judges passwords only,
    unless it has an attribute C{methods}.

    @raise TypeError: it is neither.
    """
    if isinstance(authenticator, AuthenticatorKind):
        return authenticator
    if not IAuthenticator.providedBy(authenticator):
        raise TypeError(f"{type(authenticator).__name__} is neither an IAuthenticator nor an AuthenticatorKind")
    return AuthenticatorKind(
        name=type(authenticator).__name__,
        directive="",
        settings=_NoSettings,
        methods=methodsOf(authenticator),
        build=lambda server, default, reactor, journal: authenticator,
        isLent=True,
    )


def handOver(
    servers: Sequence[ServerSettings], authenticators: Authenticators, file: str
) -> tuple[ServerSettings, ...]:
    """
    C{servers} of the configuration C{file}, their logins judged by those C{authenticators} that have their names.

    @raise ConfigurationError: there is no such server, or it offers what its authenticator cannot judge.
    """
    kinds = {name: kindOf(given) for name, given in authenticators.items()}
    problems = list(_strangers(kinds, [server.name for server in servers], file))
    changed = [judgedBy(server, kinds[server.name]) if server.name in kinds else server for server in servers]
    for server in changed:
        if server.name in kinds:
            problems += kindFaults(server)
    if problems:
        raise ConfigurationError(problems)
    return tuple(changed)


def _strangers(names: Collection[str], servers: Sequence[str], file: str) -> Iterator[Problem]:
    for name in names:
        if name not in servers:
            reason = f"is missing, and the application has an authenticator for it{nearest(name, servers)}"
            yield Problem(file, reason, f"server {name}")


class Outside:
    """
    What one reading of the configuration C{text} takes from outside: C{authenticators} of the application, and kinds of
    which C{text} writes the directives. C{known} are the names of mailgate's own directives.

    @ivar groups: the settings classes that declare the options of [mail] and [server NAME] that come with them.
    @ivar exclusive: those of them that choose a kind, of which a server has one.
    @ivar broken: why there is no kind, by the directive that should choose it.
    @ivar hasty: the directives of kinds with which the reactor was imported.
    @raise ValueError: directives of C{authenticators} are known already.
    """

    def __init__(self, text: str, authenticators: Authenticators, known: Collection[str]) -> None:
        self._known = set(known)
        self._byServer = {name: kindOf(given) for name, given in authenticators.items()}
        self._chosen: list[AuthenticatorKind] = []
        self.groups: list[type] = []
        self.broken: dict[str, str] = {}
        self.hasty: set[str] = set()
        for kind in self._byServer.values():
            self._declare(kind)
        written = dict.fromkeys(_WRITTEN.findall(text))
        for anew in (False, True):
            unknown = [name for name in written if name not in self._known and name not in self.broken]
            for name in unknown and installed(anew):
                if name in unknown:
                    self._find(name)

    @property
    def exclusive(self) -> tuple[str, ...]:
        return (*(kind.directive for kind in self._chosen), *self.broken)

    def extended(self, kinds: Sequence[SectionKind]) -> tuple[SectionKind, ...]:
        """The C{kinds} of sections, with these options in those where authenticators are chosen."""
        groups = tuple(self.groups)
        return tuple(
            evolve(kind, settings=(*kind.settings, *groups)) if groups and kind.word in JUDGED else kind
            for kind in kinds
        )

    def kindFor(self, name: str, given: Collection[str]) -> AuthenticatorKind | None:
        """Who judges the logins of the server C{name}, which has the options C{given}; L{None} if that is not said."""
        handedOver = self._byServer.get(name)
        if handedOver is not None:
            return handedOver
        return next((kind for kind in (*self._chosen, *AUTHENTICATORS) if kind.directive in given), None)

    def strangers(self, servers: Sequence[str], file: str) -> Iterator[Problem]:
        """The servers for which the application has an authenticator, and which are none of C{servers}."""
        return _strangers(self._byServer, servers, file)

    def _find(self, name: str) -> None:
        wasImported = _REACTOR in sys.modules
        try:
            kind = findKind(name, self._known)
        except BrokenEntryPoint as error:
            self.broken[name] = str(error)
            return
        if _REACTOR in sys.modules and not wasImported:
            self.hasty.add(name)
        self._chosen.append(kind)
        self._declare(kind)

    def _declare(self, kind: AuthenticatorKind) -> None:
        if kind.settings in (*SERVER_SETTINGS, *self.groups):
            return
        fault = undeclarable(kind, self._known)
        if fault:
            raise ValueError(f"the authenticator {kind.name} {fault}")
        self.groups.append(kind.settings)
        self._known.update(declared.name for declared in directives(kind.settings))
