"""
Tests for L{mailgate.net.racing}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.net.names import Found
from mailgate.net.racing import RacingEndpoint, inTurns

SIX, FOUR = ("2001:db8::1", "2001:db8::2"), ("192.0.2.1", "192.0.2.2", "192.0.2.3")


@implementer(IStreamClientEndpoint)
class Address:
    """The endpoint of an address, and what became of its attempts."""

    def __init__(self, host, attempts):
        self.host, self.attempts = host, attempts
        self.isCancelled = False

    def connect(self, factory):
        self.result = Deferred(self._cancel)
        self.attempts.append(self)
        return self.result

    def _cancel(self, result):
        self.isCancelled = True


class InTurnsTests(SynchronousTestCase):
    """The order of addresses."""

    def test_families(self):
        """They take turns; the first is that of the answer, or the one that is asked for."""
        self.assertEqual(inTurns((*SIX, *FOUR)), [SIX[0], FOUR[0], SIX[1], FOUR[1], FOUR[2]])
        self.assertEqual(inTurns((*FOUR, *SIX)), [FOUR[0], SIX[0], FOUR[1], SIX[1], FOUR[2]])
        self.assertEqual(inTurns((*SIX, *FOUR), first=False), [FOUR[0], SIX[0], FOUR[1], SIX[1], FOUR[2]])
        self.assertEqual(inTurns(FOUR, first=True), list(FOUR))


class RacingTests(SynchronousTestCase):
    """Connections to a name."""

    def setUp(self):
        self.clock = Clock()
        self.attempts = []
        self.found = lambda: succeed(Found((SIX[0], FOUR[0], FOUR[1]), 30.0))

    def lookup(self, name):
        self.asked = name
        return self.found()

    def endpoint(self, name="mail.test", timeout=None):
        return RacingEndpoint(self, lambda host: Address(host, self.attempts), self.clock, name, timeout)

    @property
    def tried(self):
        return [attempt.host for attempt in self.attempts]

    def test_interface(self):
        """It is an endpoint."""
        verifyObject(IStreamClientEndpoint, self.endpoint())

    def test_first(self):
        """The first that connects is used; no other is tried."""
        connecting = self.endpoint().connect(None)
        self.attempts[0].result.callback("protocol")
        self.assertEqual(self.successResultOf(connecting), "protocol")
        self.assertEqual(self.tried, [SIX[0]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent(self):
        """An address that does not answer delays the login by a quarter of a second, and is given up in the end."""
        connecting = self.endpoint().connect(None)
        self.clock.advance(0.24)
        self.assertEqual(self.tried, [SIX[0]])
        self.clock.advance(0.01)
        self.assertEqual(self.tried, [SIX[0], FOUR[0]])
        self.attempts[1].result.callback("protocol")
        self.assertEqual(self.successResultOf(connecting), "protocol")
        self.assertTrue(self.attempts[0].isCancelled)

    def test_late(self):
        """The first attempt may still win after the second has begun."""
        connecting = self.endpoint().connect(None)
        self.clock.advance(0.25)
        self.attempts[0].result.callback("protocol")
        self.assertEqual(self.successResultOf(connecting), "protocol")
        self.assertTrue(self.attempts[1].isCancelled)

    def test_refused(self):
        """After a refusal the next address is tried at once."""
        self.endpoint().connect(None)
        self.attempts[0].result.errback(ConnectionRefusedError())
        self.assertEqual(self.tried, [SIX[0], FOUR[0]])
        self.clock.advance(0.24)
        self.assertEqual(len(self.tried), 2)

    def test_all(self):
        """When all have failed, that of the first is the reason."""
        connecting = self.endpoint().connect(None)
        for number, error in enumerate((ConnectionRefusedError(), ConnectTimeout(), ConnectTimeout())):
            self.assertNoResult(connecting)
            self.attempts[number].result.errback(error)
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_remembered(self):
        """For ten minutes the family that connected goes first."""
        endpoint = self.endpoint()
        endpoint.connect(None)
        self.attempts[0].result.errback(ConnectionRefusedError())
        self.attempts[1].result.callback("protocol")
        endpoint.connect(None)
        self.assertEqual(self.tried[2:], [FOUR[0]])
        self.clock.advance(700)
        del self.attempts[:]
        endpoint.connect(None)
        self.assertEqual(self.tried[:1], [SIX[0]])

    def test_noAddress(self):
        """A name that is not found is a failure."""
        self.found = lambda: fail(DNSLookupError())
        self.failureResultOf(self.endpoint().connect(None), DNSLookupError)

    def test_names(self):
        """A name in another script is looked up as the DNS has it; what is no name is not looked up."""
        self.endpoint("b\u00fccher.test").connect(None)
        self.assertEqual(self.asked, "xn--bcher-kva.test")
        self.failureResultOf(self.endpoint("a b").connect(None), ValueError)

    def test_cancelled(self):
        """Giving up ends all attempts, and a lookup that comes back later begins none."""
        connecting = self.endpoint().connect(None)
        self.clock.advance(0.25)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual([attempt.isCancelled for attempt in self.attempts], [True, True])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        lookup = Deferred()
        self.found = lambda: lookup
        again = self.endpoint().connect(None)
        again.cancel()
        self.failureResultOf(again, CancelledError)
        lookup.callback(Found(FOUR, 1.0))
        self.assertEqual(len(self.attempts), 2)

    def test_timeout(self):
        """It takes no longer than its time."""
        connecting = self.endpoint(timeout=5.0).connect(None)
        self.clock.advance(5)
        self.failureResultOf(connecting, ConnectTimeout)
