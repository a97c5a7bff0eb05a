# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
What a protocol is: a server's half, which is a table of commands, a client's half, and the record that makes a protocol
of both.
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
    One word of a dialogue: C{act(server, arguments)} carries it out. Unless C{inClear} it is refused before TLS where
    C{starttls only} asks for that.
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
    A protocol that mailgate speaks, and all that others than its own modules have to know of it.

    @ivar name: what the directive C{protocol} and the log call it, and what its own directives begin with.
    @ivar ports: those that it is known by; the first is that of servers.
    @ivar server: the dialogue before login.
    @ivar client: the login at a backend.
    @ivar settings: the class of its directives, whose C{methods} are the login methods that are configured, and whose
        C{capabilities} the list that clients hear.
    @ivar implicitPorts: those of C{ports} where clients speak TLS from the first byte (RFC 8314, section 7.3).
    @ivar authName: what authentication services call it.
    @ivar alpn: what TLS calls it (RFC 7301).
    @ivar own: capabilities that the gateway announces itself where they are so; with parameters they are the same.
    @ivar unkept: capabilities that promise a command before the login which the gateway does not obey.
    @ivar parted: what parts capabilities that are configured as one item; L{None} where they have blanks in them.
    @ivar lacks: called with the configured capabilities and the login methods; returns in a phrase for the operator
        what clients miss there, empty where they miss nothing.
    @ivar wantsClientName: whether backends, or services, are told the name that DNS has for the client's address.
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

    @property
    def backendPorts(self) -> tuple[int, int]:
        """The ports of backends in the clear and with TLS from the first byte on, each 0 where none is known."""
        implicit = self.implicitPorts[0] if self.implicitPorts else 0
        return next((port for port in self.ports if port != implicit), 0), implicit

    def methods(self, server: ServerSettings) -> frozenset[Method]:
        """The login methods that C{server} is configured to take."""
        settings: Any = server[self.settings]
        offered: frozenset[Method] = settings.methods
        return offered | {Method.PLAIN} if server[DialogueSettings].unlistedAuth else offered
