"""
A gateway whose logins are judged by what the application hands over (L{mailgate.service.Gateway}).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.auth import passthrough
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.interfaces import AuthenticatorKind
from mailgate.login import Denial, Method, Trouble
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports
from mailgate.test.support.talk import Talk
from mailgate.testing import FakeAuthenticator

SERVER = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:1143\n"
OTHER = "[server other]\nprotocol = imap\nlisten = 127.0.0.1:1144\nauth_http = h/\n"


def making(build: Any) -> AuthenticatorKind:
    """A kind that makes what C{build()} returns."""
    return evolve(passthrough.KIND, name="mine", directive="", build=lambda *_: build())


class ServingTests(TestCase):
    """Clients of a gateway, over the loopback."""

    timeout = 30

    async def asks(self, host: str, port: int) -> bytes:
        """What a client hears whose login is judged at C{host}."""
        from twisted.internet import reactor

        endpoint = TCP4ClientEndpoint(reactor, host, port)
        client: Any = await endpoint.connect(Factory.forProtocol(Talk))
        self.addCleanup(client.transport.abortConnection)
        await client.hears(b"ready\r\n")
        heard: bytes = await client.asks(b"a LOGIN joe sesame", b"\r\na ")
        return heard

    async def test_everyAddress(self) -> None:
        """It judges at every address of its server, at one beside the server's own wildcard too, and at no other's."""
        from twisted.internet import reactor

        port, unjudged, silent = freePort(), freePort(), freePort()
        text = f"""[mail]
auth_delay = 0
[server imap]
protocol = imap
listen =
    0.0.0.0:{port}
    127.0.0.1:{port}
[server other]
protocol = imap
listen = 127.0.0.1:{unjudged}
auth_http = 127.0.0.1:{silent}
"""
        mine = FakeAuthenticator(*[Denial(Trouble.DENIED)] * 2)
        gateway = Gateway(parse(withTransports(text), authenticators={"imap": mine}), reactor)
        gateway.startService()
        self.addCleanup(gateway.stopService)
        for count, host in enumerate(("127.0.0.1", "127.0.0.2"), 1):
            self.assertIn(b"NO [AUTHENTICATIONFAILED]", await self.asks(host, port))
            self.assertEqual(len(mine.requests), count)
        self.assertIn(b"NO [UNAVAILABLE]", await self.asks("127.0.0.1", unjudged))
        self.assertEqual(len(mine.requests), 2)
        self.assertEqual(len(self.flushLoggedErrors()), 0)


class ConstructionTests(SynchronousTestCase):
    """Gateways that are not started."""

    def gateway(self, text: str, authenticators: Any, read: Mapping[str, Any] = {}) -> Gateway:
        """A gateway with C{authenticators}; C{read} were there when its configuration C{text} was read."""
        settings = parse(f"[mailgate]\nuse = reactor\n{text}", authenticators=read)
        return Gateway(settings, MemoryReactorClock(), authenticators=authenticators)

    def test_replaced(self) -> None:
        """It takes the place of what the configuration says, for the server that is named."""
        mine = FakeAuthenticator()
        gateway = self.gateway(f"{SERVER}auth_http = h/\n{OTHER}", {"imap": mine})
        first, second = gateway.factories
        self.assertIs(first.authenticator, mine)
        self.assertIsNot(second.authenticator, mine)
        self.assertEqual((first.dialogue.authDelay, second.dialogue.authDelay), (2.0, 0.0))

    def test_closed(self) -> None:
        """What the gateway has had made it closes when it stops; what is the application's it does not."""
        mine, its = FakeAuthenticator(), FakeAuthenticator()
        gateway = self.gateway(f"{SERVER}{OTHER}", {"other": making(lambda: its)}, {"imap": mine})
        gateway.stopService()
        self.assertEqual((mine.closed, its.closed), (False, True))

    def test_notClosed(self) -> None:
        """One that cannot be closed keeps nothing else from stopping, and is logged."""
        broken, other = FakeAuthenticator(), FakeAuthenticator()
        self.patch(broken, "close", lambda: 1 / 0)
        makings = {"imap": making(lambda: broken), "other": making(lambda: other)}
        gateway = self.gateway(f"{SERVER}{OTHER}", makings, {"imap": makings["imap"]})
        stopped = gateway.stopService()
        self.assertIsNotNone(self.successResultOf(stopped))
        self.assertTrue(other.closed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_closedUnused(self) -> None:
        """Where another cannot be made there is no gateway, and what was made for it is closed."""
        its = FakeAuthenticator()
        makings = {"imap": making(lambda: its), "other": making(lambda: 1 / 0)}
        text = f"{SERVER}{OTHER}"
        self.assertRaises(ConfigurationError, self.gateway, text, makings, {"imap": makings["imap"]})
        self.assertTrue(its.closed)

    def test_eachItsOwn(self) -> None:
        """Of a kind each server has one of its own."""
        made: list[FakeAuthenticator] = []

        def build() -> FakeAuthenticator:
            made.append(FakeAuthenticator())
            return made[-1]

        kind = making(build)
        gateway = self.gateway(f"{SERVER}{OTHER}", {"other": kind}, {"imap": kind})
        self.assertEqual([factory.authenticator for factory in gateway.factories], made)
        self.assertEqual(len(made), 2)

    def refused(self, authenticators: Any) -> str:
        """What is said of C{authenticators} for a server that has no other."""
        text = f"{SERVER}imap_auth = plain cram-md5\nauth_http = h/\n"
        return str(self.assertRaises(ConfigurationError, self.gateway, text, authenticators))

    def test_unknown(self) -> None:
        """There has to be a server of that name."""
        self.assertIn("[server imp]: is missing, and the application has an auth", self.refused({"imp": making(print)}))

    def test_methods(self) -> None:
        """What the server offers has to be what it can judge."""
        self.assertIn("offers cram-md5, which FakeAuthenticator cannot", self.refused({"imap": FakeAuthenticator()}))

    def test_unmade(self) -> None:
        """A kind of which none can be made is an error of the configuration, which a reload survives."""
        capable = frozenset({Method.PLAIN, Method.CRAM_MD5})
        broken = evolve(making(lambda: 1 / 0), methods=capable)
        self.assertEqual(
            self.refused({"imap": broken}),
            "gateway.ini:3: [server imap]: cannot create the authenticator mine: ZeroDivisionError: division by zero",
        )
        wrong = evolve(broken, build=lambda *_: "")
        self.assertIn(": TypeError: str does not provide IAuthenticator", self.refused({"imap": wrong}))
