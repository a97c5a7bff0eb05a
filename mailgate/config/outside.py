# -*- test-case-name: mailgate.test.config.test_outside -*-
"""
Authenticators from outside mailgate: those that an application provides for servers by name, and those of other
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
"""Authenticators, or kinds from which each gateway builds one, by the names of the servers whose logins they judge."""

HASTY = (
    "loads a module that imports twisted.internet.reactor at once, which does not work with worker processes;"
    " import the reactor in a function, or set worker_processes = 1"
)
"""Why an authenticator of another distribution cannot be used with workers."""

_REACTOR = "twisted.internet.reactor"
_WRITTEN = re.compile(r"^[ \t]*([a-z][a-z0-9_]*)[ \t]*=", re.MULTILINE)
"""What may be an option. A line of a value that looks like an option only costs a look-up of entry points."""


@frozen
class _NoSettings:
    """Settings of an authenticator that the application provides: the application has configured it."""


def kindOf(authenticator: AuthenticatorKind | IAuthenticator) -> AuthenticatorKind:
    """
    Wrap an authenticator in a kind. The application closes an authenticator that it has built itself. Such an
    authenticator judges passwords only, unless it has an attribute C{methods}.

    @param authenticator: an authenticator, or a kind, which is returned unchanged.
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
    Give servers the authenticators that an application provides.

    @param servers: the servers of the configuration.
    @param authenticators: authenticators or kinds by the names of servers.
    @param file: the name of the configuration file, for the problems.
    @return: all C{servers}, changed where C{authenticators} has their name.
    @raise ConfigurationError: C{authenticators} names a server that does not exist, or a server offers login methods
        that its authenticator does not support.
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
            reason = f"is missing, but the application provides an authenticator for it{nearest(name, servers)}"
            yield Problem(file, reason, f"server {name}")


class Outside:
    """
    The authenticators from outside that one configuration uses: those of the application, and kinds of other
    distributions whose directives the configuration contains.

    @param text: the contents of the configuration file.
    @param authenticators: authenticators or kinds of the application, by the names of servers.
    @param known: the names of mailgate's own directives.
    @ivar groups: the settings classes of these kinds; they declare additional options of [mail] and [server NAME].
    @ivar exclusive: the directives that select one of these kinds. A server has at most one such directive.
    @ivar broken: why a kind cannot be used, by the directive that selects it.
    @ivar hasty: the directives of kinds whose import imported the reactor.
    @raise ValueError: a kind of C{authenticators} declares a directive that exists already.
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
        """Add the options of these authenticators to those C{kinds} of sections that accept them."""
        groups = tuple(self.groups)
        return tuple(
            evolve(kind, settings=(*kind.settings, *groups)) if groups and kind.word in JUDGED else kind
            for kind in kinds
        )

    def kindFor(self, name: str, given: Collection[str]) -> AuthenticatorKind | None:
        """
        The kind of authenticator that judges the logins of a server; L{None} if nothing selects one.

        @param name: the name of the server.
        @param given: the names of its options.
        """
        handedOver = self._byServer.get(name)
        if handedOver is not None:
            return handedOver
        return next((kind for kind in (*self._chosen, *AUTHENTICATORS) if kind.directive in given), None)

    def strangers(self, servers: Sequence[str], file: str) -> Iterator[Problem]:
        """
        Yield a problem for each server that the application provides an authenticator for and that does not exist.

        @param servers: the names of the servers that exist.
        @param file: the name of the configuration file, for the problems.
        """
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
