"""
For tests of authenticators and protocols, in this project and in others. Nothing here opens a socket or waits: tests
pass bytes in, turn a clock, and look at the result.

L{Conversation} is a client's conversation with a gateway whose authenticator is the test's, or a L{FakeAuthenticator};
L{Attempt} is a login at backends that the test plays; L{requestFor} makes what an authenticator is asked. The fakes are
verified against the interfaces that they stand for. The gateway itself imports none of this.
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
    "requestFor",
    "resultOf",
    "routeTo",
    "settingsOf",
]
