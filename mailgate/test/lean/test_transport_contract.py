"""
The contract of L{mailgate.test.support.transportcontract}, with TLS, connectors and ports, for Twisted's own transports
and for mailgate's lean ones.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.test.lean.test_contract_tls import Encrypted
from mailgate.test.support import transportcontract as contract
from mailgate.test.support.contractkinds import OverLean, OverTwisted, Verifying


class Plain(contract.Transfer, contract.Pausing, contract.Producing, contract.Closing):
    """Plain text without TLS."""


class ScenarioTests(SynchronousTestCase):
    """The scenarios themselves."""

    def test_noneHidden(self) -> None:
        """No topic overrides a scenario of another, which then would not run."""
        for topics in (Plain.__bases__, (Encrypted, Verifying)):
            names = [name for topic in topics for name in vars(topic) if name.startswith("test_")]
            self.assertEqual(len(names), len(set(names)))
            self.assertGreater(len(names), 30)


class TwistedAcceptedTests(OverTwisted, contract.Accepted, Plain, TestCase):
    """Twisted's own transports, accepted."""


class TwistedConnectedTests(OverTwisted, contract.Connected, Plain, TestCase):
    """Twisted's own transports, connected."""


class TwistedUNIXAcceptedTests(OverTwisted, contract.Accepted, Plain, TestCase):
    """Twisted's own transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class TwistedUNIXConnectedTests(OverTwisted, contract.Connected, Plain, TestCase):
    """Twisted's own transports, connected to a unix socket."""

    family = socket.AF_UNIX


class LeanAcceptedTests(OverLean, contract.Accepted, Plain, TestCase):
    """Lean transports, accepted."""


class LeanConnectedTests(OverLean, contract.Connected, Plain, TestCase):
    """Lean transports, connected."""


class LeanUNIXAcceptedTests(OverLean, contract.Accepted, Plain, TestCase):
    """Lean transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class LeanUNIXConnectedTests(OverLean, contract.Connected, Plain, TestCase):
    """Lean transports, connected to a unix socket."""

    family = socket.AF_UNIX
