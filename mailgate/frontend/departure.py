# -*- test-case-name: mailgate.test.frontend.test_dialogue -*-
"""
Ends a connection before its login is done: the client leaves, or the gateway closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from mailgate.log.connection import defect
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase
from mailgate.tls.errors import HandshakeBroken, clientTrouble, hasReason
from mailgate.tls.settings import TLSSettings

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["certificateRefused", "end", "expire", "handshakeFailed", "isSilent", "leave", "lossOf", "turnAway"]


def isSilent(server: ProxyServer) -> bool:
    """
    Return whether the client has sent no byte. Port scanners and health checks do that.

    @param server: the dialogue.
    """
    if server.session.phase is Phase.TLS:
        return server.factory.address.ssl and not _speaksInTLS(server)
    return server.inClear and not (server.hasSpoken or server.buffer)


def _speaksInTLS(server: ProxyServer) -> bool:
    """Return whether the client has sent a byte of the handshake."""
    connection = server.transport.getHandle()
    return connection is not None and bool(getattr(connection, "heard", True))


def lossOf(server: ProxyServer, error: Any) -> tuple[Outcome, str]:
    """
    Return the outcome for a connection that the client closed or broke, and a reason for the log (may be empty).

    @param server: the dialogue.
    @param error: the exception with which the transport ended.
    """
    isOfTLS = hasReason(error)
    if not isOfTLS and isSilent(server):
        return Outcome.SILENT, ""
    if server.session.phase is Phase.TLS:
        spoken = server.factory.settings[TLSSettings].protocols
        return Outcome.TLS_FAILED, clientTrouble(error, server.transport.getHandle(), spoken)
    # With TLS 1.3 a client may reject our certificate after the handshake is complete.
    return Outcome.CLIENT_LEFT, clientTrouble(error) if isOfTLS else ""


def certificateRefused(server: ProxyServer) -> bool:
    """
    Check the client's certificate as C{ssl_verify_client} demands. On refusal, say goodbye and close.

    @param server: the dialogue.
    @return: whether the certificate was refused.
    """
    tls = server.factory.tls
    assert tls is not None
    refusal = tls.refusal(server.transport.getHandle())
    if refusal is None:
        return False
    server.session.conclude(Outcome.CERTIFICATE, refusal.reason)
    watch = server.factory.watch
    if watch is not None:
        watch.encrypted(server.session, False, HandshakeBroken(refusal.trouble, refusal.reason))
    server.end(Outcome.CERTIFICATE, server.goodbye(refusal.trouble))
    return True


def handshakeFailed(server: ProxyServer, error: BaseException | None) -> None:
    """
    Report a failed TLS handshake to the watch. A client that sent no byte, as port scanners do, began none.

    @param server: the dialogue, in the phase TLS. Its factory has a watch.
    @param error: why.
    """
    watch, session = server.factory.watch, server.session
    if watch is not None and session.outcome is not Outcome.SILENT:
        watch.encrypted(session, False, error)


def expire(server: ProxyServer) -> None:
    """
    Say goodbye because the client missed a deadline, or its session has lasted as long as it may, and close.

    @param server: the dialogue.
    """
    outcome = Outcome.EXPIRED if server.session.hasExpired(server.clock.seconds()) else Outcome.TIMEOUT
    if outcome is Outcome.TIMEOUT and server.session.phase is Phase.TLS:
        reason = "the client sent nothing instead of a TLS handshake"
        if _speaksInTLS(server):
            reason = "the client did not finish the TLS handshake"
        server.session.conclude(Outcome.TIMEOUT, reason)
    if server.isAcknowledging:
        # The client may not know the error, and wait for the refusal.
        server.lastReply(Trouble.TIMEOUT)
        server.unacknowledged()
        server.end(outcome)
        return
    server.end(outcome, server.goodbye(Trouble.TIMEOUT))


def end(server: ProxyServer, outcome: Outcome, goodbye: bytes) -> None:
    """
    Send a goodbye and close. Cancel a pending login.

    @param server: the dialogue.
    @param outcome: why the connection ends. An earlier outcome of the session stays.
    @param goodbye: the last bytes for the client; during a TLS handshake they are not sent.
    """
    session = server.session
    if session.phase is Phase.END:
        return
    session.conclude(outcome)
    handshaking = session.phase is Phase.TLS and session.tls is None
    if handshaking and server.factory.watch is not None:
        trouble = Trouble.TIMEOUT if session.outcome is Outcome.TIMEOUT else Trouble.STOPPING
        handshakeFailed(server, HandshakeBroken(trouble, session.reason))
    leave(server)
    if handshaking:
        server.transport.abortConnection()
        return
    goodbye = goodbye or server.takeParting()
    if goodbye:
        server.transport.write(goodbye)
    server.transport.unregisterProducer()
    # TLS waits for the client's close_notify, which a paused transport does not read.
    server.readOn()
    server.transport.loseConnection()
    server.waitForClose()


def turnAway(server: ProxyServer, trouble: Trouble) -> None:
    """
    Close a connection that has just begun, as a limit demands. The client gets one line. On a port that speaks TLS it
    gets none: a handshake is the work that an attacker wants the gateway to do.

    @param server: the dialogue, whose session has its outcome.
    @param trouble: why.
    """
    leave(server)
    if not server.factory.address.ssl:
        server.transport.write(server.goodbye(trouble))
    server.transport.loseConnection()
    server.waitForClose()


def leave(server: ProxyServer) -> None:
    """
    Enter the phase END: drop buffered commands, stop the deadline and cancel a pending login.

    @param server: the dialogue.
    """
    session = server.session
    session.end()
    server.takeAll()
    server.stopWaiting()
    pending, server.pending = server.pending, None
    if pending is not None:
        try:
            pending.cancel()
        except Exception:
            # A foreign authenticator may raise when it is cancelled. The connection must end anyway.
            defect(server.factory.journal, session, "the login failed", Failure())
