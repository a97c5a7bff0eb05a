"""
The contract of L{mailgate.test.support.transportcontract}, with TLS, connectors and ports, for Twisted's own transports
and for mailgate's lean ones.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.test.lean.test_contract_tls import Encrypted
from mailgate.test.support.contractkinds import OverLean, OverTwisted, Verifying
from mailgate.test.support.transportbench import Accepted, Connected
from mailgate.test.support.transportclosing import Closing
from mailgate.test.support.transportcontract import Transfer
from mailgate.test.support.transportflow import Pausing, Producing


class Plain(Transfer, Pausing, Producing, Closing):
    """Plain text without TLS."""


class ScenarioTests(SynchronousTestCase):
    """The scenarios themselves."""

    def test_noneHidden(self) -> None:
        """No topic overrides a scenario of another, which then would not run."""
        for topics in (Plain.__bases__, (Encrypted, Verifying)):
            names = [name for topic in topics for name in vars(topic) if name.startswith("test_")]
            self.assertEqual(len(names), len(set(names)))
            self.assertGreater(len(names), 30)


class TwistedAcceptedTests(OverTwisted, Accepted, Plain, TestCase):
    """Twisted's own transports, accepted."""


class TwistedConnectedTests(OverTwisted, Connected, Plain, TestCase):
    """Twisted's own transports, connected."""


class TwistedUNIXAcceptedTests(OverTwisted, Accepted, Plain, TestCase):
    """Twisted's own transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class TwistedUNIXConnectedTests(OverTwisted, Connected, Plain, TestCase):
    """Twisted's own transports, connected to a unix socket."""

    family = socket.AF_UNIX


class LeanAcceptedTests(OverLean, Accepted, Plain, TestCase):
    """Lean transports, accepted."""


class LeanConnectedTests(OverLean, Connected, Plain, TestCase):
    """Lean transports, connected."""


class LeanUNIXAcceptedTests(OverLean, Accepted, Plain, TestCase):
    """Lean transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class LeanUNIXConnectedTests(OverLean, Connected, Plain, TestCase):
    """Lean transports, connected to a unix socket."""

    family = socket.AF_UNIX
