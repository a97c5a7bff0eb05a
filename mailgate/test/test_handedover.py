"""A gateway with authenticators that the application passes in (L{mailgate.service.Gateway})."""

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
from mailgate.service import Gateway, ProcessState
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports
from mailgate.test.support.talk import Talk
from mailgate.testing import FakeAuthenticator

SERVER = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:1143\n"
OTHER = "[server other]\nprotocol = imap\nlisten = 127.0.0.1:1144\nauth_http = h/\n"


def making(build: Any) -> AuthenticatorKind:
    """A kind whose authenticator is the result of C{build()}."""
    return evolve(passthrough.KIND, name="mine", directive="", build=lambda *_: build())


class ServingTests(TestCase):
    """Clients of a gateway, over the loopback."""

    timeout = 30

    async def asks(self, host: str, port: int) -> bytes:
        """Return the reply to a login at C{host}."""
        from twisted.internet import reactor

        endpoint = TCP4ClientEndpoint(reactor, host, port)
        client: Any = await endpoint.connect(Factory.forProtocol(Talk))
        self.addCleanup(client.transport.abortConnection)
        await client.hears(b"ready\r\n")
        heard: bytes = await client.asks(b"a LOGIN joe sesame", b"\r\na ")
        return heard

    async def test_everyAddress(self) -> None:
        """
        The authenticator is used at all addresses of its server, also beside the server's own wildcard, and at no
        other.
        """
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
        """
        A gateway with C{authenticators}; C{read} are those that were known when its configuration C{text} was read.
        """
        settings = parse(f"[mailgate]\nuse = reactor\n{text}", authenticators=read)
        return Gateway(settings, MemoryReactorClock(), authenticators=authenticators)

    def test_replaced(self) -> None:
        """The authenticator replaces the configured one for the named server."""
        mine = FakeAuthenticator()
        gateway = self.gateway(f"{SERVER}auth_http = h/\n{OTHER}", {"imap": mine})
        first, second = gateway.factories
        self.assertIs(first.authenticator, mine)
        self.assertIsNot(second.authenticator, mine)
        self.assertEqual((first.dialogue.authDelay, second.dialogue.authDelay), (2.0, 0.0))

    def test_closed(self) -> None:
        """The gateway closes authenticators that it created when it stops, and not those of the application."""
        mine, its = FakeAuthenticator(), FakeAuthenticator()
        gateway = self.gateway(f"{SERVER}{OTHER}", {"other": making(lambda: its)}, {"imap": mine})
        gateway.stopService()
        self.assertEqual((mine.closed, its.closed), (False, True))

    def test_notClosed(self) -> None:
        """An error when an authenticator is closed is logged and does not keep the rest from stopping."""
        broken, other = FakeAuthenticator(), FakeAuthenticator()
        self.patch(broken, "close", lambda: 1 / 0)
        makings = {"imap": making(lambda: broken), "other": making(lambda: other)}
        gateway = self.gateway(f"{SERVER}{OTHER}", makings, {"imap": makings["imap"]})
        stopped = gateway.stopService()
        self.assertIsNotNone(self.successResultOf(stopped))
        self.assertTrue(other.closed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_closedUnused(self) -> None:
        """If an authenticator cannot be created, the constructor fails and closes those that it created."""
        its = FakeAuthenticator()
        makings = {"imap": making(lambda: its), "other": making(lambda: 1 / 0)}
        text = f"{SERVER}{OTHER}"
        self.assertRaises(ConfigurationError, self.gateway, text, makings, {"imap": makings["imap"]})
        self.assertTrue(its.closed)

    def test_forgotten(self) -> None:
        """A gateway that cannot be created follows no notices: a process may try many configurations."""
        state = ProcessState.of(MemoryReactorClock())
        kinds = {"imap": making(FakeAuthenticator), "other": making(lambda: 1 / 0)}
        settings = parse(f"[mailgate]\nuse = reactor\n{SERVER}{OTHER}", authenticators={"imap": kinds["imap"]})
        reactor = MemoryReactorClock()
        self.assertRaises(ConfigurationError, Gateway, settings, reactor, state=state, authenticators=kinds)
        self.assertEqual(state.notices._subscribers, [])

    def test_verdicts(self) -> None:
        """A gateway without health checks takes back what those of an earlier configuration have found."""
        reactor = MemoryReactorClock()
        state = ProcessState.of(reactor)
        state.notices.publish("verdict", "store/192.0.2.1:143", {"failing": True})
        settings = parse(f"[mailgate]\nuse = reactor\n{SERVER}proxy_pass = 192.0.2.7:143\n")
        gateway = Gateway(settings, reactor, state=state)
        for listener in gateway.listeners:
            # It would bind its address, which tests in other processes may have.
            gateway.removeService(listener)
        gateway.startService()
        reactor.advance(0)
        self.assertEqual(list(state.notices.held("verdict")), [])
        gateway.stopService()
        self.assertEqual(state.notices._subscribers, [])

    def test_eachItsOwn(self) -> None:
        """Each server has its own authenticator of a kind."""
        made: list[FakeAuthenticator] = []

        def build() -> FakeAuthenticator:
            made.append(FakeAuthenticator())
            return made[-1]

        kind = making(build)
        gateway = self.gateway(f"{SERVER}{OTHER}", {"other": kind}, {"imap": kind})
        self.assertEqual([factory.authenticator for factory in gateway.factories], made)
        self.assertEqual(len(made), 2)

    def refused(self, authenticators: Any) -> str:
        """Return the error about C{authenticators} for a server without another authenticator."""
        text = f"{SERVER}imap_auth = plain cram-md5\nauth_http = h/\n"
        return str(self.assertRaises(ConfigurationError, self.gateway, text, authenticators))

    def test_unknown(self) -> None:
        """An unknown server name is an error."""
        self.assertIn(
            "[server imp]: is missing, but the application provides an auth", self.refused({"imp": making(print)})
        )

    def test_methods(self) -> None:
        """The authenticator must support the mechanisms that the server offers."""
        self.assertIn("offers cram-md5, which FakeAuthenticator does not", self.refused({"imap": FakeAuthenticator()}))

    def test_unmade(self) -> None:
        """A kind whose authenticator cannot be created is an error of the configuration, which a reload survives."""
        capable = frozenset({Method.PLAIN, Method.CRAM_MD5})
        broken = evolve(making(lambda: 1 / 0), methods=capable)
        self.assertEqual(
            self.refused({"imap": broken}),
            "gateway.ini:3: [server imap]: cannot create the authenticator mine: ZeroDivisionError: division by zero",
        )
        wrong = evolve(broken, build=lambda *_: "")
        self.assertIn(": TypeError: str does not provide IAuthenticator", self.refused({"imap": wrong}))
