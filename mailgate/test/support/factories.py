"""
Factories of dialogues, for tests of the code around dialogues.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from mailgate.directives import ListenAddress
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.log.journal import Journal
from mailgate.protocols.pop3 import POP3
from mailgate.testing import FakeAuthenticator, FakeConnector, settingsOf


def makeMeans(**given: Any) -> Means:
    """Return means that consist of fakes and a clock, except for those in C{given}."""
    fakes = {
        "authenticator": FakeAuthenticator(),
        "connector": FakeConnector(),
        "clock": Clock(),
        "journal": Journal(),
    }
    return Means(**{**fakes, **given})


def makeFactory(address: ListenAddress, **given: Any) -> ProxyServerFactory:
    """Return a factory of POP3 dialogues at C{address}, with L{makeMeans}."""
    return ProxyServerFactory(POP3, settingsOf("pop3"), address, makeMeans(**given))
