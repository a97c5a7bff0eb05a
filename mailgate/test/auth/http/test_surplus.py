"""
Services that send more bytes than their Content-Length says, over real sockets: the surplus must not answer any
request.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailgate.test.support.certificates import Authority
from mailgate.test.support.surplus import Attack, Service

CLIENTS = 10
ROUNDS = 2
TRIES = 2


class SurplusCase(TestCase):
    """A gateway over the transports that C{use} names, with a service whose surplus comes in many ways."""

    timeout = 60
    use = "epoll"

    def service(self, case: str) -> Service:
        """Start a service of the kind C{case}."""
        return Service(case)

    def assertHarmless(self, case: str) -> Deferred[None]:
        """Check that exactly the right logins are accepted, and that each gateway logs the fault once."""
        return Deferred.fromCoroutine(self._attack(case))

    async def _attack(self, case: str) -> None:
        from twisted.internet import reactor

        service = self.service(case)
        self.addCleanup(service.stop)
        attack = Attack(reactor, service, CLIENTS, self.use)
        for _ in range(ROUNDS):
            await attack.round(TRIES)
        tally = attack.tally
        self.assertEqual((tally.harm, tally.faults, tally.others), ((0, 0, 0), ROUNDS, []))
        self.assertGreaterEqual(tally.right, ROUNDS * CLIENTS * TRIES // 2)


class SurplusTests(SurplusCase):
    """Over plain HTTP."""

    def test_same(self) -> Deferred[None]:
        """In the same write."""
        return self.assertHarmless("same")

    def test_atOnce(self) -> Deferred[None]:
        """In the next write."""
        return self.assertHarmless("0")

    def test_soon(self) -> Deferred[None]:
        """Half a millisecond later."""
        return self.assertHarmless("0.5")

    def test_later(self) -> Deferred[None]:
        """Five milliseconds later."""
        return self.assertHarmless("5")

    def test_late(self) -> Deferred[None]:
        """Fifteen milliseconds later."""
        return self.assertHarmless("15")

    def test_filled(self) -> Deferred[None]:
        """After an answer that fills the gateway's buffer exactly."""
        return self.assertHarmless("filled")

    def test_server(self) -> Deferred[None]:
        """By C{http.server}, whose handler declares an empty body and writes one."""
        return self.assertHarmless("server")


class ReactorTests(SurplusCase):
    """Over Twisted's own transports."""

    use = "reactor"

    def test_soon(self) -> Deferred[None]:
        """Half a millisecond later."""
        return self.assertHarmless("0.5")

    def test_filled(self) -> Deferred[None]:
        """After an answer that fills mailgate's buffer exactly, but not Twisted's."""
        return self.assertHarmless("filled")


class UnixTests(SurplusCase):
    """Over a unix socket."""

    def service(self, case: str) -> Service:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return Service(case, path=os.path.join(folder, "auth"))

    def test_soon(self) -> Deferred[None]:
        """Half a millisecond later."""
        return self.assertHarmless("0.5")

    def test_filled(self) -> Deferred[None]:
        """After an answer that fills the gateway's buffer exactly."""
        return self.assertHarmless("filled")


class TLSTests(SurplusCase):
    """Over https."""

    def service(self, case: str) -> Service:
        folder = self.mktemp()
        os.mkdir(folder)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service")])
        _, pem = Authority(folder, "authority").issue("service", name)
        return Service(case, pem=os.path.abspath(pem))

    def test_soon(self) -> Deferred[None]:
        """Half a millisecond later."""
        return self.assertHarmless("0.5")

    def test_filled(self) -> Deferred[None]:
        """After a long answer."""
        return self.assertHarmless("filled")


class ReactorTLSTests(TLSTests):
    """Over https and Twisted's own transports."""

    use = "reactor"
