# -*- test-case-name: mailgate.test.tls.test_tickets -*-
"""
Contexts that are alike but for the keys of their tickets (RFC 5077, 4; RFC 8446, 4.6.1), and which of them is for whom.

OpenSSL makes those keys at random, with the context, and has no call in pyOpenSSL to change them. Processes that are
forked when the contexts are there have the same keys, and none is made later; so what changes with time is the context.
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
"""Contexts in a ring."""

PERIOD = 3600.0
"""Seconds for which a context issues tickets, at the least."""

KEY_NAME = 16
"""The bytes at the beginning of OpenSSL's tickets that say which key it takes."""

_FLIGHTS = 6


class ITicketReader(IOpenSSLServerConnectionCreator):
    """
    Makes connections by the tickets that their clients offer, for transports that look into a ClientHello first. What
    C{serverConnectionForTLS} gives is for the others: it resumes what the present key has issued.
    """

    readsTickets = Attribute("Whether tickets matter now: where not, there is nothing to wait for.")

    def newConnection() -> SSL.Connection:
        """A connection of whoever offers no ticket, or none that matters."""

    def creatorFor(tickets: Sequence[bytes]) -> IOpenSSLServerConnectionCreator | None:
        """Who makes a connection that resumes one of C{tickets}; L{None} if that is no other than this."""


class FixedKeys:
    """The first of C{contexts} issues tickets, and all take those that they have issued, at any time."""

    def __init__(self, contexts: Iterable[SSL.Context]) -> None:
        self._contexts = tuple(contexts)
        self._names: dict[SSL.Context, bytes] = {}

    @property
    def issuing(self) -> SSL.Context:
        """The context of new sessions."""
        return self._contexts[0]

    @property
    def older(self) -> Sequence[SSL.Context]:
        """The contexts that do not issue tickets any more, and whose tickets are still good."""
        return self._contexts[1:]

    def find(self, tickets: Sequence[bytes]) -> SSL.Context | None:
        """The one of L{older} that has issued one of C{tickets}."""
        names = {ticket[:KEY_NAME] for ticket in tickets}
        return next((each for each in self.older if self._nameOf(each) in names), None) if names else None

    def _nameOf(self, context: SSL.Context) -> bytes | None:
        # Found out when it is needed: a handshake for each context would make a start slow.
        if context not in self._names:
            self._names[context] = keyName(context)
        return self._names[context] or None


class TicketRing(FixedKeys):
    """
    Each of C{contexts} issues tickets in its turn, for L{PERIOD}, or for C{lifetime}, which is how many seconds a
    session can be resumed, if that is longer; and takes them for C{lifetime} after that. OpenSSL renews a ticket by
    the key that it was issued by, so one that is renewed after its context's turn is good until then, and no longer.

    Keys come back when the ring has gone round. Tickets of the last time are long out of date then.

    @ivar period: the seconds of a turn.
    """

    def __init__(
        self, contexts: Iterable[SSL.Context], lifetime: float, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Begin with the first turn.

        @param seconds: the clock. That of the system which is never set is the same in all processes.
        """
        super().__init__(contexts)
        self._lifetime = lifetime
        self._seconds = seconds
        self._birth = seconds()
        self.period = max(lifetime, PERIOD)

    @property
    def issuing(self) -> SSL.Context:
        turn = int((self._seconds() - self._birth) // self.period)
        return self._contexts[turn % len(self._contexts)]

    @property
    def older(self) -> Sequence[SSL.Context]:
        turn, since = divmod(self._seconds() - self._birth, self.period)
        if turn < 1 or since >= self._lifetime or len(self._contexts) == 1:
            return ()
        return (self._contexts[int(turn - 1) % len(self._contexts)],)


def issuesTickets(context: SSL.Context) -> bool:
    """Whether C{context}, a server's that has made no connection yet, lets clients keep their sessions themselves."""
    return not context.set_options(0) & SSL.OP_NO_TICKET


def keyName(context: SSL.Context) -> bytes:
    """
    The name of the key of C{context}, a server's that issues tickets, as it stands in these; empty if hands cannot be
    shaken with it. Takes a handshake.
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
            # It is good only as long as its connection, the first, is there.
            second.set_session(session)
        _advance(second)
        hello.feed(second.bio_read(READ_SIZE))
    return hello.tickets[0][:KEY_NAME] if hello.tickets else b""


def _shakeHands(client: SSL.Connection, server: SSL.Connection) -> None:
    """To the end, and have C{client} read its tickets."""
    for _ in range(_FLIGHTS):
        for source, target in ((client, server), (server, client)):
            _advance(source)
            carry(source, target)
    with suppress(SSL.WantReadError):
        client.recv(1)


def _advance(connection: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        connection.do_handshake()
