# -*- test-case-name: mailgate.test.frontend -*-
"""
Hands both connections of a login that has succeeded over to a relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from mailgate.backend.client import ProxyClient
from mailgate.log.connection import LOGGED_IN, RELAY_BEGUN, about, defect, tlsName
from mailgate.log.journal import Journal, printable
from mailgate.session import Outcome, Phase, Session

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["handOver"]


def handOver(server: ProxyServer, client: ProxyClient) -> None:
    """
    Hand both connections over to a relay.

    @param server: the dialogue with the client.
    @param client: the conversation with the backend.
    """
    factory, session = server.factory, server.session
    server.stopWaiting()
    session.enter(Phase.RELAY)
    journal = session.debugging or factory.journal
    if journal.wantsInfo:
        _logLoggedIn(journal, session)
    if factory.watch is not None:
        factory.watch.relaying(session, factory.clock.seconds() - server.loginBegan)
    if factory.admission is not None:
        factory.admission.relaying(session)
    client.detach()
    early = server.takeAll()
    if session.debugging is not None:
        session.step(RELAY_BEGUN, backend=session.backend or "-", early=len(early))
    relay = factory.relays.between(server, client, session, factory.relayTerms)
    factory.connections.discard(server)
    factory.connections.add(relay)
    try:
        relay.start(server.accept(client) + client.leftOver, early)
    except Exception:
        # The relay owns both connections now, so it must close them.
        defect(factory.journal, session, "the relay failed", Failure())
        session.conclude(Outcome.INTERNAL)
        relay.abort()
    if session.readings is not None and factory.settlesTimes:
        session.settleTimes()


def _logLoggedIn(journal: Journal, session: Session) -> None:
    journal.record(
        LOGGED_IN,
        **about(session),
        tls=tlsName(session.tls),
        method=session.method.value if session.method else "-",
        backend=session.backend or "-",
        times=session.times,
        user=printable(session.user),
    )
