# -*- test-case-name: mailgate.test.frontend.test_dialogue -*-
"""
How a connection ends before the login is done: the client leaves, or is told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from mailgate.log.connection import defect
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase
from mailgate.tls.errors import clientTrouble, hasReason
from mailgate.tls.settings import TLSSettings

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["certificateRefused", "end", "expire", "isSilent", "leave", "lossOf"]


def isSilent(server: ProxyServer) -> bool:
    """Whether the client has sent no byte since it arrived: so do those who only look whether a port is open."""
    if server.session.phase is Phase.TLS:
        return server.factory.address.ssl and not _speaksInTLS(server)
    return server.inClear and not (server.hasSpoken or server.intake.buffer)


def _speaksInTLS(server: ProxyServer) -> bool:
    """Whether a byte of the handshake has come."""
    connection = server.transport.getHandle()
    return connection is not None and bool(getattr(connection, "heard", True))


def lossOf(server: ProxyServer, error: Any) -> tuple[Outcome, str]:
    """
    Why the client has gone, and words for the log about that.

    @param error: what the transport knows.
    """
    isOfTLS = hasReason(error)
    if not isOfTLS and isSilent(server):
        return Outcome.SILENT, ""
    if server.session.phase is Phase.TLS:
        spoken = server.factory.settings[TLSSettings].protocols
        return Outcome.TLS_FAILED, clientTrouble(error, server.transport.getHandle(), spoken)
    # By TLS 1.3 some clients look at our certificate when hands have been shaken.
    return Outcome.CLIENT_LEFT, clientTrouble(error) if isOfTLS else ""


def certificateRefused(server: ProxyServer) -> bool:
    """Whether the client cannot stay, by C{ssl_verify_client}; then it has been told."""
    tls = server.factory.tls
    assert tls is not None
    refusal = tls.refusal(server.transport.getHandle())
    if refusal is None:
        return False
    server.session.conclude(Outcome.CERTIFICATE, refusal.reason)
    server.end(Outcome.CERTIFICATE, server.goodbye(refusal.trouble))
    return True


def expire(server: ProxyServer) -> None:
    """The client has let a deadline pass: tell it so, and close."""
    if server.session.phase is Phase.TLS:
        fault = (
            "did not finish the TLS handshake" if _speaksInTLS(server) else "sent nothing instead of a TLS handshake"
        )
        server.session.conclude(Outcome.TIMEOUT, f"the client {fault}")
    server.end(Outcome.TIMEOUT, server.goodbye(Trouble.TIMEOUT))


def end(server: ProxyServer, outcome: Outcome, goodbye: bytes) -> None:
    """Say C{goodbye} to the client and close, whatever is under way."""
    session = server.session
    if session.phase is Phase.END:
        return
    session.conclude(outcome)
    handshaking = session.phase is Phase.TLS and session.tls is None
    leave(server)
    if handshaking:
        server.transport.abortConnection()
        return
    goodbye = goodbye or server.takeParting()
    if goodbye:
        server.transport.write(goodbye)
    server.transport.unregisterProducer()
    # TLS has to hear the other's goodbye, which a paused transport does not.
    server.intake.readOn(server)
    server.transport.loseConnection()
    server.patience.restart(server.transport.abortConnection)


def leave(server: ProxyServer) -> None:
    """Enter END: nothing is obeyed or waited for any more."""
    session = server.session
    session.enter(Phase.END)
    server.intake.takeAll()
    server.patience.stop()
    pending, server.pending = server.pending, None
    if pending is not None:
        try:
            pending.cancel()
        except Exception:
            # An authenticator from outside may refuse to be cancelled: the connection ends all the same.
            defect(server.factory.journal, session, "the login failed", Failure())
