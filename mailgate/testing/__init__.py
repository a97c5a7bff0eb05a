"""
Helpers for tests of authenticators and protocols, in this project and in others. They open no sockets and do not wait:
a test passes bytes in, advances a clock, and examines the result.

- L{Conversation} is the connection of a client to a gateway, with the test's authenticator or a L{FakeAuthenticator}.
- L{Attempt} is a login at backends that the test plays.
- L{requestFor} makes the L{LoginRequest<mailgate.login.LoginRequest>} that an authenticator gets.

The fakes are verified against the interfaces that they implement. The gateway itself does not import this package.
"""

from mailgate.testing.attempt import BACKEND, Attempt, requestFor, resultOf, routeTo
from mailgate.testing.conversation import Conversation, hearEverything
from mailgate.testing.fakes import (
    CLIENT,
    ROUTE,
    CheckedSession,
    FakeAuthenticator,
    FakeClient,
    FakeConnector,
    FakeTransport,
    makeSession,
    settingsOf,
)

__all__ = [
    "BACKEND",
    "CLIENT",
    "ROUTE",
    "Attempt",
    "CheckedSession",
    "Conversation",
    "FakeAuthenticator",
    "FakeClient",
    "FakeConnector",
    "FakeTransport",
    "hearEverything",
    "makeSession",
    "requestFor",
    "resultOf",
    "routeTo",
    "settingsOf",
]
