# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
Describes a protocol: its commands, and a record with its dialogue, its login at a backend and its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen

from mailgate.directives import ServerSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Method

if TYPE_CHECKING:
    from mailgate.backend.client import ProxyClient
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["Command", "MailProtocol"]


@frozen
class Command:
    """
    A command of a dialogue.

    @ivar act: called with the dialogue and the arguments to obey it.
    @ivar inClear: whether it is allowed without TLS under C{starttls = only}.
    """

    act: Callable[[Any, Any], None]
    inClear: bool = True


def _ownName(record: MailProtocol) -> str:
    return record.name


def _lacksNothing(configured: Sequence[str], methods: Set[Method]) -> str:
    return ""


@frozen(eq=False)
class MailProtocol:
    """
    A protocol that the gateway speaks: everything that other modules need to know of it.

    @ivar name: its name in the directive C{protocol} and in the log, and the prefix of its own directives.
    @ivar ports: its well-known ports; the first is the one between servers.
    @ivar server: the class of the dialogue before login.
    @ivar client: the class of the login at a backend.
    @ivar settings: the class of its directives. It has C{methods}, the configured login methods, and C{capabilities},
        the configured list.
    @ivar implicitPorts: those of C{ports} with implicit TLS (RFC 8314, section 7.3).
    @ivar authName: its name in requests to the authentication service (C{Auth-Protocol}).
    @ivar alpn: its name in ALPN (RFC 7301).
    @ivar own: capabilities that the gateway announces itself when they apply, in capitals and without parameters.
    @ivar unkept: capabilities that promise a command before the login which the gateway does not have.
    @ivar parted: the separator of capabilities within one configured item; L{None} if capabilities contain blanks.
    @ivar lacks: called with the configured capabilities and the login methods. It returns a phrase for the operator
        about a missing capability, or an empty string.
    @ivar learnable: called with what each backend offers, as L{mailgate.backend.client.ProxyClient.offered} returns it.
        It returns what the gateway may announce before the login: what all of them offer and the gateway keeps, in the
        order of the first. L{None} for a protocol whose backends are not asked.
    @ivar mostErrors: the default of C{max_errors}; L{None} for that of the directive.
    @ivar wantsClientName: whether the backend or the authentication service gets the client's host name from DNS.
    """

    name: str
    ports: tuple[int, ...]
    server: type[ProxyServer]
    client: type[ProxyClient]
    settings: type
    implicitPorts: tuple[int, ...] = ()
    authName: str = Factory(_ownName, takes_self=True)
    alpn: str = Factory(_ownName, takes_self=True)
    own: tuple[str, ...] = ()
    unkept: tuple[str, ...] = ()
    parted: str | None = None
    lacks: Callable[[Sequence[str], Set[Method]], str] = _lacksNothing
    wantsClientName: bool = False
    learnable: Callable[[Sequence[tuple[bytes, ...]]], tuple[bytes, ...]] | None = None
    mostErrors: int | None = None

    @property
    def backendPorts(self) -> tuple[int, int]:
        """The default ports of backends: in the clear and with implicit TLS. 0 means that there is none."""
        implicit = self.implicitPorts[0] if self.implicitPorts else 0
        return next((port for port in self.ports if port != implicit), 0), implicit

    def methods(self, server: ServerSettings) -> frozenset[Method]:
        """Return the login methods that C{server} accepts."""
        settings: Any = server[self.settings]
        offered: frozenset[Method] = settings.methods
        return offered | {Method.PLAIN} if server[DialogueSettings].unlistedAuth else offered
