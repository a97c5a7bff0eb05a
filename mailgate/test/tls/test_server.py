"""
Tests for L{mailgate.tls.server} and L{mailgate.frontend.dialogue}: TLS with a gateway over the loopback, with both
kinds of transports and every protocol.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from mailgate.config import parse
from mailgate.login import Denial, LoginRequest, TLSDetails, Trouble
from mailgate.sandbox.service import SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports
from mailgate.test.support.certificates import Authority, clientContext
from mailgate.test.support.talk import Talk
from mailgate.test.support.tlspair import makePair
from mailgate.testing import FakeAuthenticator
from mailgate.tls.server import ServerTLS

TEXT = """
[mailgate]
error_log = stderr info
[mail]
server_name = mx.test
proxy_pass = 127.0.0.1:{backend}
auth_delay = 0
starttls = on
ssl_certificate = {certificate}
ssl_certificate_key = {key}
{more}
[server imap]
protocol = imap
imap_capabilities = IMAP4rev1
listen =
    127.0.0.1:{imap}
    127.0.0.1:{imaps} ssl
[server pop3]
protocol = pop3
pop3_capabilities = USER
listen =
    127.0.0.1:{pop3}
    127.0.0.1:{pop3s} ssl
[server smtp]
protocol = smtp
smtp_capabilities = 8BITMIME
listen =
    127.0.0.1:{smtp}
    127.0.0.1:{smtps} ssl
[sandbox]
imap = 127.0.0.1:{backend}
pop3 = 127.0.0.1:0
smtp = 127.0.0.1:0
sieve = 127.0.0.1:0
auth_http = 127.0.0.1:0
"""

STARTTLS = {"imap": b"s STARTTLS", "pop3": b"STLS", "smtp": b"STARTTLS"}
STARTED = {"imap": b"s OK completed\r\n", "pop3": b"+OK\r\n", "smtp": b"220 2.0.0 Start TLS\r\n"}
GREETINGS = {"imap": b"* OK IMAP4 ready\r\n", "pop3": b"+OK POP3 ready", "smtp": b"220 mx.test ESMTP ready\r\n"}
NOOP = {"imap": b"n NOOP", "pop3": b"NOOP", "smtp": b"NOOP"}
DONE = {"imap": b"n OK completed\r\n", "pop3": b"+OK\r\n", "smtp": b"250 2.0.0 OK\r\n"}
LOGIN = {"imap": b"l LOGIN joe sesame", "pop3": b"AUTH PLAIN AGpvZQBzZXNhbWU=", "smtp": b"AUTH PLAIN AGpvZQBzZXNhbWU="}
REFUSED = {"imap": b"l NO ", "pop3": b"-ERR ", "smtp": b"535 "}
BAD = {
    "imap": b"* BYE SSL certificate error\r\n",
    "pop3": b"-ERR SSL certificate error\r\n",
    "smtp": b"421 4.7.1 SSL certificate error\r\n",
}
MISSING = {
    "imap": b"* BYE No required SSL certificate\r\n",
    "pop3": b"-ERR No required SSL certificate\r\n",
    "smtp": b"421 4.7.1 No required SSL certificate\r\n",
}


class TLSTalk(Talk):
    """
    A client that starts TLS on request, and sends C{early} in the segment of its Finished. C{secured} fires at the end
    of the handshake, C{failed} is the error if it fails, and C{heard} is the plaintext.
    """

    tls: Any = None
    handshaken = False
    failed: Exception | None = None
    closed = False
    _early = b""

    def startTLS(self, context: ssl.SSLContext, early: bytes = b"", session: Any = None) -> None:
        """Start TLS with C{context}."""
        self.heard = b""
        self.secured: Deferred[None] = Deferred()
        self._early = early
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, False, "mail.example.com", session)
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        if self.tls is None:
            super().dataReceived(data)
        else:
            self._incoming.write(data)
            self._advance()

    def asks(self, line: bytes, awaited: bytes) -> Deferred[bytes]:
        if self.tls is None:
            return super().asks(line, awaited)
        self.tls.write(line + b"\r\n")
        self._flush()
        return self.hears(awaited)

    def _flush(self) -> None:
        assert self.transport is not None
        self.transport.write(self._outgoing.read())

    def _advance(self) -> None:
        try:
            if not self.handshaken:
                self.tls.do_handshake()
                self.handshaken = True
                if self._early:
                    self.tls.write(self._early)
                # Everything written so far is one segment.
                self._flush()
                self.secured.callback(None)
            while data := self.tls.read(65536):
                super().dataReceived(data)
            # As mail clients do: they do not wait for anything more.
            self.closed = True
            self.transport.loseConnection()  # type: ignore[union-attr]
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self.failed = error
            self._flush()
            if not self.handshaken and not self.secured.called:
                self.secured.callback(None)


class Case(TestCase):
    """A gateway for all protocols that trusts C{self.authority} for client certificates."""

    timeout = 30
    use = "epoll"

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority(self.folder, "authority")
        self.good = self.authority.issue("joe")[1]
        self.bad = Authority(self.folder, "elsewhere").issue("mallory")[1]
        self.authenticator = FakeAuthenticator(*[Denial(Trouble.DENIED)] * 20)
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def start(self, mode: str = "off", more: str = "", judged: bool = True) -> None:
        """Start the gateway with C{ssl_verify_client} = C{mode}. Unless C{judged}, logins go to a sandbox."""
        names = [f"{protocol}{kind}" for protocol in STARTTLS for kind in ("", "s")]
        self.ports = {name: freePort() for name in (*names, "backend")}
        pair = makePair(self.folder, "server", "localhost", "127.0.0.1", "mx.test")
        roots = "" if mode == "off" else f"ssl_client_certificate = {self.authority.certificate}\n"
        directives = f"ssl_verify_client = {mode}\n{roots}{more}"
        if "ssl_protocols" not in more:
            directives += "\nssl_protocols = TLSv1.2 TLSv1.3"
        text = TEXT.format(certificate=pair.certificate, key=pair.key, more=directives, **self.ports)
        settings = parse(withTransports(text, self.use))
        self.gateway = gateway = Gateway(settings, self.reactor)
        SandboxService(settings[SandboxSettings], self.reactor).setServiceParent(gateway)
        if judged:
            for listener in gateway.listeners:
                listener.factory.answer = self.authenticator.authenticate
        gateway.privilegedStartService()
        gateway.startService()
        self.addCleanup(gateway.stopService)

    async def connect(self, name: str) -> TLSTalk:
        """A client at the port C{name} that has sent nothing."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        connected: Any = await endpoint.connect(Factory.forProtocol(TLSTalk))
        self.addCleanup(connected.transport.abortConnection)
        client: TLSTalk = connected
        return client

    async def implicit(self, protocol: str, context: ssl.SSLContext, **changes: Any) -> TLSTalk:
        """A client with TLS from the first byte."""
        client = await self.connect(f"{protocol}s")
        client.startTLS(context, **changes)
        await client.secured
        return client

    async def upgraded(self, protocol: str, context: ssl.SSLContext, **changes: Any) -> TLSTalk:
        """A client that has used STARTTLS."""
        client = await self.connect(protocol)
        await client.hears(GREETINGS[protocol])
        await client.asks(STARTTLS[protocol], STARTED[protocol])
        client.startTLS(context, **changes)
        await client.secured
        return client

    def both(self) -> Any:
        """Both ways to TLS."""
        return (self.implicit, self.upgraded)

    async def lastRequest(self, client: TLSTalk, protocol: str) -> LoginRequest:
        """The request for C{client} that the authenticator receives."""
        await client.asks(LOGIN[protocol], REFUSED[protocol])
        return self.authenticator.requests[-1]

    def logged(self) -> list[str]:
        """The log."""
        return [formatEvent(event) for event in self.events if event["log_namespace"] == "mailgate"]

    async def ended(self, client: TLSTalk) -> None:
        """Wait until both sides of the connection of C{client} are closed."""
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.lost


class CertificateTests(Case):
    """C{ssl_verify_client}."""

    async def test_good(self) -> None:
        """A good certificate is accepted, and the dialogue continues."""
        self.start("on")
        for protocol in STARTTLS:
            for connect in self.both():
                client = await connect(protocol, clientContext(self.good))
                await client.asks(NOOP[protocol], DONE[protocol])

    async def assertTurnedAway(self, words: dict[str, bytes], chain: str | None) -> None:
        for protocol in STARTTLS:
            for connect in self.both():
                client = await connect(protocol, clientContext(chain))
                await client.lost
                self.assertEqual(client.heard, words[protocol])
                self.assertTrue(client.closed, "no close_notify")
        self.assertEqual(self.authenticator.requests, [])

    async def test_bad(self) -> None:
        """A bad certificate is refused by a reply of the protocol, in place of the greeting or first after STARTTLS."""
        self.start("optional")
        await self.assertTurnedAway(BAD, self.bad)

    async def test_none(self) -> None:
        """A missing certificate is refused if it is required."""
        self.start("on")
        await self.assertTurnedAway(MISSING, None)

    async def test_early(self) -> None:
        """A command that arrives with the Finished of a refused client is ignored."""
        self.start("optional")
        for protocol in STARTTLS:
            for connect in self.both():
                client = await connect(protocol, clientContext(self.bad), early=LOGIN[protocol] + b"\r\n")
                await client.lost
                self.assertEqual(client.heard, BAD[protocol])
        self.assertEqual(self.authenticator.requests, [])

    async def test_log(self) -> None:
        """The log has nginx's reason, and an outcome of its own."""
        self.start("on")
        for chain, reason in (
            (self.bad, "SSL certificate verify error: (19:self-signed certificate in certificate chain)"),
            (None, "sent no required SSL certificate"),
        ):
            client = await self.implicit("imap", clientContext(chain))
            await client.lost
            while not self.logged() or "connection ended" not in self.logged()[-1]:
                turn: Deferred[None] = Deferred()
                self.reactor.callLater(0, turn.callback, None)
                await turn
            (story,) = self.logged()
            self.assertIn("tls TLSv1.3", story)
            self.assertIn(f"reached tls, outcome client certificate refused ({reason}), ", story)
            self.events.clear()

    async def test_optional(self) -> None:
        """C{optional} accepts a missing certificate, C{optional_no_ca} an unknown issuer, too."""
        self.start("optional_no_ca")
        for chain in (None, self.bad):
            client = await self.implicit("pop3", clientContext(chain))
            await client.hears(GREETINGS["pop3"])

    async def test_inClear(self) -> None:
        """A plain connection needs no certificate, and can log in unless starttls is "only"."""
        self.start("on")
        for protocol in STARTTLS:
            client = await self.connect(protocol)
            await client.hears(GREETINGS[protocol])
            request = await self.lastRequest(client, protocol)
            self.assertIsNone(request.client.details)

    async def test_refusedAgain(self) -> None:
        """A refused client is refused again if it offers the previous session, with TLS 1.2 and TLS 1.3."""
        self.start("optional", "ssl_session_cache = shared:TLS:1m")
        for version in ("TLSv1_2", "TLSv1_3"):
            context, session = clientContext(self.bad, version), None
            for _ in range(2):
                client = await self.implicit("imap", context, session=session)
                await client.lost
                self.assertEqual(client.heard, BAD["imap"])
                self.assertFalse(client.tls.session_reused)
                session = client.tls.session

    async def test_relayed(self) -> None:
        """A client with a certificate logs in, and reaches its backend."""
        self.start("on", judged=False)
        for connect in self.both():
            client = await connect("imap", clientContext(self.good))
            await client.asks(b"a LOGIN alice wonderland", b"a OK")
            self.assertIn(b" EXISTS\r\n", await client.asks(b"b SELECT INBOX", b"b OK"))


class CertificateOverReactorTests(CertificateTests):
    """The same over the reactor's own transports."""

    use = "reactor"


class DetailsTests(Case):
    """The TLS details that the authenticator receives."""

    async def test_certificate(self) -> None:
        """It receives the result of the verification and the certificate, with STARTTLS and without."""
        self.start("optional_no_ca")
        for protocol in STARTTLS:
            for connect in self.both():
                for chain, verification, subject in (
                    (self.good, "SUCCESS", "CN=joe"),
                    (self.bad, "FAILED:self-signed certificate in certificate chain", "CN=mallory"),
                    (None, "NONE", None),
                ):
                    client = await connect(protocol, clientContext(chain))
                    details = (await self.lastRequest(client, protocol)).client.details
                    assert details is not None
                    self.assertEqual(details.verification, verification)
                    self.assertEqual(details.certificate and details.certificate.subject, subject)
                    self.assertEqual(details.serverName, "mail.example.com")
        self.assertEqual(len(self.authenticator.requests), 18)

    async def test_notAsked(self) -> None:
        """The details are not computed if they are not read."""
        asked: list[object] = []
        details = ServerTLS.details

        def note(server: ServerTLS, connection: object) -> TLSDetails:
            asked.append(connection)
            return details(server, connection)

        self.patch(ServerTLS, "details", note)
        self.start("off")
        client = await self.implicit("imap", clientContext(self.good))
        request = await self.lastRequest(client, "imap")
        self.assertIsNotNone(request.client.tls)
        self.assertEqual(asked, [])
        self.assertEqual(request.client.details, TLSDetails("mail.example.com", signature="SHA256", key="EC256"))
        self.assertIs(request.client.details, request.client.details)
        self.assertEqual(len(asked), 1)


class DetailsOverReactorTests(DetailsTests):
    """The same over the reactor's own transports."""

    use = "reactor"


class ApplicationProtocolTests(Case):
    """ALPN."""

    async def test_ours(self) -> None:
        """The server's protocol is selected, also from among others. A client without ALPN is served."""
        self.start()
        for protocol in STARTTLS:
            for connect in self.both():
                for offered, chosen in (((protocol,), protocol), (("h2", protocol), protocol), ((), None)):
                    client = await connect(protocol, clientContext(alpn=offered))
                    await client.asks(NOOP[protocol], DONE[protocol])
                    self.assertEqual(client.tls.selected_alpn_protocol(), chosen)

    async def test_others(self) -> None:
        """A client that offers only other protocols receives the alert no_application_protocol, and is closed."""
        self.start()
        for protocol, other in (("imap", "pop3"), ("pop3", "POP3"), ("smtp", "http/1.1")):
            for connect in self.both():
                for version in ("TLSv1_2", "TLSv1_3"):
                    client = await connect(protocol, clientContext(version=version, alpn=(other,)))
                    await client.lost
                    self.assertIn("NO_APPLICATION_PROTOCOL", str(client.failed).upper().replace(" ", "_"))
                    self.assertEqual(client.heard, b"")

    async def test_log(self) -> None:
        """The outcome is a failed handshake, and no exception is logged."""
        self.start()
        client = await self.implicit("imap", clientContext(alpn=("h2",)))
        await client.lost
        while not self.logged():
            turn: Deferred[None] = Deferred()
            self.reactor.callLater(0, turn.callback, None)
            await turn
        (story,) = self.logged()
        self.assertIn("reached tls, outcome TLS handshake failed", story)
        self.assertEqual([event for event in self.events if event.get("log_failure")], [])


class ApplicationProtocolOverReactorTests(ApplicationProtocolTests):
    """The same over the reactor's own transports."""

    use = "reactor"


class ResumptionTests(Case):
    """Sessions of returning clients when the ticket keys change."""

    resumed = (False, True, True, False)
    """Whether a client resumes its session at the start, again, one turn later, and half a turn after that."""

    def turn(self, protocol: str, turns: float) -> None:
        """Set the clock of the server of C{protocol} to one second after the start, plus C{turns} of the keys."""
        for each in self.gateway.listeners:
            factory: Any = each.factory
            if factory.record.name == protocol:
                ring = factory.tls._contexts
                ring._birth = ring._seconds() - turns * ring.period - 1

    async def test_resumed(self) -> None:
        """
        A session is resumed, with STARTTLS and without, as long as its ticket is valid. Later there is a full
        handshake.
        """
        self.start()
        for protocol in STARTTLS:
            for version in ("TLSv1_2", "TLSv1_3"):
                for connect in self.both():
                    context, session, found = clientContext(version=version), None, []
                    for turns in (0, 0, 1, 1.5):
                        self.turn(protocol, turns)
                        client = await connect(protocol, context, early=NOOP[protocol] + b"\r\n", session=session)
                        await client.hears(DONE[protocol])
                        found.append(client.tls.session_reused)
                        session = client.tls.session
                    self.assertEqual(found, list(self.resumed), (protocol, version))

    async def test_brokenOff(self) -> None:
        """
        A session in ssl_session_cache stays there if the client closes without close_notify, before its login or after
        it. Twisted's transports remove it, as after an attack.
        """
        self.start(more="ssl_session_cache = shared:SSL:1m\nssl_session_tickets = off", judged=False)
        for version in ("TLSv1_2", "TLSv1_3"):
            for connect in self.both():
                for leave in ("loseConnection", "abortConnection"):
                    for logsIn in (False, True):
                        context, session, found = clientContext(version=version), None, []
                        for _ in range(2):
                            client = await connect("imap", context, session=session)
                            await client.asks(NOOP["imap"], DONE["imap"])
                            if logsIn:
                                await client.asks(b"l LOGIN alice wonderland", b"l OK")
                            found.append(client.tls.session_reused)
                            session = client.tls.session
                            await self.brokenOff(client, leave)
                        self.assertEqual(found, [False, self.use == "epoll"], (version, leave, logsIn))

    async def brokenOff(self, client: TLSTalk, leave: str) -> None:
        """Close C{client} without close_notify, and wait until the gateway has noticed."""
        self.events.clear()
        getattr(client.transport, leave)()
        while not any("connection ended" in line for line in self.logged()):
            turn: Deferred[None] = Deferred()
            self.reactor.callLater(0, turn.callback, None)
            await turn

    async def test_neverComplete(self) -> None:
        """
        C{timeout} limits a handshake also while the gateway waits for a complete ClientHello. Nothing is left of such a
        client.
        """
        self.start(more="timeout = 200ms")
        self.turn("imap", 1)
        client = await self.connect("imaps")
        # The header of a record, and half of its content.
        hello = b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03" + bytes(60)
        client.transport.write(hello)  # type: ignore[union-attr]
        await client.lost
        self.assertIn("reached tls, outcome client timed out", "".join(self.logged()))


class ResumptionOverReactorTests(ResumptionTests):
    """The same over the reactor's own transports."""

    use = "reactor"
    resumed = (False, True, False, True)
    """After a change of keys there is a full handshake, and a ticket of the new key."""


class EarlyDataTests(Case):
    """Commands in the segment that ends the handshake. nginx ignores them."""

    async def test_answered(self) -> None:
        """They are answered, after the greeting if there is one."""
        self.start()
        for protocol in STARTTLS:
            early = NOOP[protocol] + b"\r\n"
            client = await self.implicit(protocol, clientContext(), early=early)
            heard = await client.hears(b"\r\n" + DONE[protocol])
            self.assertTrue(heard.startswith(GREETINGS[protocol]), heard)
            client = await self.upgraded(protocol, clientContext(), early=early)
            self.assertEqual(await client.hears(DONE[protocol]), DONE[protocol])

    async def test_withCertificate(self) -> None:
        """They are answered for a client that must send a certificate, too."""
        self.start("on")
        for protocol in STARTTLS:
            early = NOOP[protocol] + b"\r\n"
            client = await self.upgraded(protocol, clientContext(self.good), early=early)
            await client.hears(DONE[protocol])


class EarlyDataOverReactorTests(EarlyDataTests):
    """The same over the reactor's own transports."""

    use = "reactor"
