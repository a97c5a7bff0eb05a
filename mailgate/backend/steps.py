# -*- test-case-name: mailgate.test.backend.test_steps -*-
"""
The steps of a login at backends, for the log at level debug: why a backend was chosen, and what happened there. No
line repeats what was sent to a backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mailgate.log.connection import (
    ATTEMPT_FAILED,
    BACKEND_ACCEPTED,
    BACKEND_LOGIN,
    BACKEND_TLS,
    CONNECTED,
    INTRODUCED,
    peerName,
)
from mailgate.log.journal import printable
from mailgate.login import Route
from mailgate.session import Phase, Session
from mailgate.tls.server import isResumed
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import PeerState

if TYPE_CHECKING:
    from mailgate.backend.client import ProxyClient
    from mailgate.backend.place import Place

__all__ = ["Steps", "whyChosen"]

_MOST_NAMED = 3
"""Servers of a group whose state a line has."""

_COMMANDS = (b"XCLIENT", b"XFORWARD")


def whyChosen(place: Place, route: Route, now: int) -> str:
    """
    Return why a login goes to a place: fields for the log.

    @param place: the place.
    @param route: what the authenticator has named.
    @param now: the time in whole seconds.
    """
    group = place.group
    named = " ".join(map(str, route.backends)) if len(route.backends) > 1 else ""
    if group is None:
        return f"route {named}" if named else "route names no other"
    out = [peer for peer in group.peers if peer is not place.peer and not peer.isEligible(now)]
    states = [f"{peer.backend} {_stateOf(peer.state(now))}" for peer in out[:_MOST_NAMED]]
    more = f" and {len(out) - _MOST_NAMED} more" if len(out) > _MOST_NAMED else ""
    fields = [
        f"upstream {group.name}",
        f"method {_methodOf(group)}",
        f"sessions {0 if place.peer is None else place.peer.connections}",
        f"not used {', '.join(states)}{more}" if states else "",
        f"route {named}" if named else "",
    ]
    return ", ".join(filter(None, fields))


def _stateOf(state: PeerState) -> str:
    # A server that is up and may not be chosen has as many sessions as it may have.
    return "full" if state is PeerState.UP else state.value


def _methodOf(group: Upstream) -> str:
    settings = group.settings
    if group.pool is not None:
        return "sticky"
    if settings.leastConnections:
        return "least_conn"
    if settings.ipHash:
        return "ip_hash"
    if settings.hashKey is not None:
        return "hash"
    return "round robin" if settings.random is None else "random"


class Steps:
    """
    Logs what happens in one attempt to log in at a backend.

    @param session: the session.
    @param client: the conversation.
    @param name: how the log names the backend.
    @param seconds: returns the time in seconds.
    """

    def __init__(self, session: Session, client: ProxyClient, name: str, seconds: Callable[[], float]) -> None:
        self._session = session
        self._client: ProxyClient | None = client
        self._name = name
        self._seconds = seconds
        self._since = seconds()
        self._isConnected = False

    def close(self) -> None:
        """The attempt has ended. The conversation is not needed any more."""
        self._client = None

    @property
    def _spent(self) -> float:
        return self._seconds() - self._since

    def enter(self, phase: Phase) -> None:
        """
        Enter a phase of the session, and log the step that this shows.

        @param phase: the phase.
        """
        self._session.enter(phase)
        client = self._client
        if phase is not Phase.BACKEND_LOGIN or client is None:
            return
        if not self._isConnected:
            self._isConnected = True
            self._connected(client)
        else:
            self._secured(client.transport.getHandle())

    def _connected(self, client: ProxyClient) -> None:
        other = client.transport.getPeer()
        host = getattr(other, "host", None)
        address = "unix:" if host is None else peerName(host, other.port)
        self._session.step(CONNECTED, backend=self._name, address=address, seconds=self._spent)
        if client.caller.hasHeader:
            self._introduced(f"a PROXY header, {client.caller.proxy.proxyProtocol}")

    def _secured(self, connection: Any) -> None:
        version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name() or ""
        resumed = "yes" if isResumed(connection) else "no"
        self._session.step(BACKEND_TLS, backend=self._name, tls=f"{version} {cipher}".strip(), resumed=resumed)

    def introduces(self, line: bytes) -> None:
        """
        The client's address goes to the backend.

        @param line: the command: ID with its tag, XCLIENT or XFORWARD. Only its word is logged.
        """
        words = line.split(None, 2)
        self._introduced(printable(words[0] if words[0].upper() in _COMMANDS else words[1]))

    def _introduced(self, what: str) -> None:
        self._session.step(INTRODUCED, backend=self._name, what=what)

    def logsIn(self, method: str) -> None:
        """
        The backend has greeted, and the login is sent.

        @param method: C{proxy_method}, or what the authenticator has named.
        """
        self._session.step(BACKEND_LOGIN, backend=self._name, method=method)

    def accepted(self) -> None:
        """The client is logged in."""
        self._session.step(BACKEND_ACCEPTED, backend=self._name, seconds=self._spent)

    def failed(self, reason: str) -> None:
        """
        The attempt has failed.

        @param reason: why, in words with the backend as the subject, without texts that it may have repeated.
        """
        phase = self._session.phase.value
        self._session.step(ATTEMPT_FAILED, backend=self._name, reason=reason, phase=phase, seconds=self._spent)
