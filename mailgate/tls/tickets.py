# -*- test-case-name: mailgate.test.tls.test_tickets -*-
"""
Contexts that differ only in their ticket keys (RFC 5077, 4; RFC 8446, 4.6.1), and the choice among them.

OpenSSL creates a random ticket key with each context, and pyOpenSSL has no call to change it. So keys are rotated by
rotating contexts. All contexts are made before the workers are forked, so that all processes have the same keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import Attribute

from mailgate.tls.clienthello import ClientHello
from mailgate.tls.rehearsal import READ_SIZE, carry, willingClient

__all__ = [
    "KEY_NAME",
    "PERIOD",
    "SIZE",
    "FixedKeys",
    "ITicketReader",
    "TicketRing",
    "issuesTickets",
    "keyName",
]

SIZE = 8
"""The number of contexts in a ring."""

PERIOD = 3600.0
"""The least number of seconds for which one context issues tickets."""

KEY_NAME = 16
"""The number of bytes at the beginning of an OpenSSL ticket that identify the key."""

_FLIGHTS = 6


class ITicketReader(IOpenSSLServerConnectionCreator):
    """
    Selects a connection by the tickets that the client offers, for transports that parse the ClientHello first. Other
    transports call C{serverConnectionForTLS}, whose connections resume only sessions of the current key.
    """

    readsTickets = Attribute("Whether to read the ClientHello first: tickets of an older key are still valid.")

    def newConnection() -> SSL.Connection:
        """A connection for a client that offers no ticket of an older key."""

    def creatorFor(tickets: Sequence[bytes]) -> IOpenSSLServerConnectionCreator | None:
        """
        Select by tickets.

        @param tickets: the tickets that the client offers, in bytes.
        @return: what makes a connection that resumes one of them; L{None} if C{newConnection} is right.
        """


class FixedKeys:
    """The first of C{contexts} issues tickets. Each context resumes the sessions of its own tickets, at any time."""

    def __init__(self, contexts: Iterable[SSL.Context]) -> None:
        self._contexts = tuple(contexts)
        self._names: dict[SSL.Context, bytes] = {}

    @property
    def issuing(self) -> SSL.Context:
        """The context for new sessions."""
        return self._contexts[0]

    @property
    def older(self) -> Sequence[SSL.Context]:
        """The contexts that no longer issue tickets to new sessions, but whose tickets are still valid."""
        return self._contexts[1:]

    def find(self, tickets: Sequence[bytes]) -> SSL.Context | None:
        """The one of L{older} that issued one of C{tickets}, or L{None}."""
        names = {ticket[:KEY_NAME] for ticket in tickets}
        return next((each for each in self.older if self._nameOf(each) in names), None) if names else None

    def _nameOf(self, context: SSL.Context) -> bytes | None:
        # Found on first use: one handshake for each context would slow down the start.
        if context not in self._names:
            self._names[context] = keyName(context)
        return self._names[context] or None


class TicketRing(FixedKeys):
    """
    Each of C{contexts} in turn issues tickets for one period, and resumes their sessions for C{lifetime} after that.

    When a session is resumed, OpenSSL renews its ticket by the same key. So a ticket that is renewed after the turn of
    its context is valid only until C{lifetime} after the turn. A key is used again when the ring has gone round; by
    then, all its earlier tickets have expired.

    Several gateways share keys by L{give}, where OpenSSL lets them.

    @ivar period: the seconds of one turn: L{PERIOD}, or C{lifetime} if that is longer.
    """

    def __init__(
        self, contexts: Iterable[SSL.Context], lifetime: float, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Begin with the first turn.

        @param contexts: the contexts, which all processes share.
        @param lifetime: how many seconds a session can be resumed.
        @param seconds: a monotonic clock, which is the same in all processes.
        """
        super().__init__(contexts)
        self._lifetime = lifetime
        self._seconds = seconds
        self._birth = seconds()
        self._given: dict[bytes, SSL.Context] = {}
        self.period = max(lifetime, PERIOD)

    @property
    def issuing(self) -> SSL.Context:
        if self._given:
            return next(iter(self._given.values()))
        turn = int((self._seconds() - self._birth) // self.period)
        return self._contexts[turn % len(self._contexts)]

    @property
    def older(self) -> Sequence[SSL.Context]:
        if self._given:
            return [*self._given.values()][1:]
        turn, since = divmod(self._seconds() - self._birth, self.period)
        if turn < 1 or since >= self._lifetime or len(self._contexts) == 1:
            return ()
        return (self._contexts[int(turn - 1) % len(self._contexts)],)

    def give(self, keys: Sequence[bytes], use: Callable[[SSL.Context, bytes], bool]) -> bool:
        """
        From now on use keys that other gateways have, too. There are no turns any more.

        @param keys: the first one issues tickets, and all accept theirs. Each begins with its name. There is at least
            one, and at most half as many as contexts.
        @param use: makes a context use a key. It returns whether OpenSSL reports success.
        @return: whether tickets are issued by the first key. If not, nothing changes.
        """
        given = {key: context for key, context in self._given.items() if key in keys}
        # A context that issues tickets now keeps its key until it has gone out of use.
        kept = [*given.values(), self.issuing]
        free = [each for each in self._contexts if each not in kept]
        for key in keys:
            if key not in given:
                if not free or not use(free[-1], key):
                    return False
                given[key] = free.pop()
                self._names[given[key]] = key[:KEY_NAME]
        first = given[keys[0]]
        if not self._given and keyName(first) != keys[0][:KEY_NAME]:
            return False
        self._given = {key: given[key] for key in keys}
        return True


def issuesTickets(context: SSL.Context) -> bool:
    """Whether C{context} issues session tickets. It is a server's, and has made no connection yet."""
    return not context.set_options(0) & SSL.OP_NO_TICKET


def keyName(context: SSL.Context) -> bytes:
    """
    The name of C{context}'s ticket key, found by a handshake in memory.

    @param context: the context of a server that issues tickets.
    @return: the name as in the tickets, or empty if no handshake completes.
    """
    client = willingClient()
    server, first, second = SSL.Connection(context, None), SSL.Connection(client, None), SSL.Connection(client, None)
    server.set_accept_state()
    hello = ClientHello()
    with suppress(SSL.Error):
        first.set_connect_state()
        _shakeHands(first, server)
        session = first.get_session()
        second.set_connect_state()
        if session is not None:
            # The session is valid only as long as the first connection exists.
            second.set_session(session)
        _advance(second)
        hello.feed(second.bio_read(READ_SIZE))
    return hello.tickets[0][:KEY_NAME] if hello.tickets else b""


def _shakeHands(client: SSL.Connection, server: SSL.Connection) -> None:
    """Complete the handshake, and have C{client} read its tickets."""
    for _ in range(_FLIGHTS):
        for source, target in ((client, server), (server, client)):
            _advance(source)
            carry(source, target)
    with suppress(SSL.WantReadError):
        client.recv(1)


def _advance(connection: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        connection.do_handshake()
