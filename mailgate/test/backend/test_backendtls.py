"""
Tests of TLS to backends, and of the PROXY header before it.
"""

from __future__ import annotations

from functools import partial

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.settings import ProxySettings
from mailgate.directives import directives
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendTLS, Client, Denial, Envelope, TLSState, Trouble
from mailgate.net.proxyprotocol import headerFor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.session import Phase
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND
from mailgate.test.support.findings import askedOf
from mailgate.testing import Attempt, FakeTransport, routeTo


def leftOver(client: ProxyClient) -> bytes:
    """Detach C{client} and return the bytes for the relay."""
    client.detach()
    return client.leftOver


class TLSTests(SynchronousTestCase):
    """Backends with TLS."""

    IMPLICIT = Backend("192.0.2.99", 995, BackendTLS.IMPLICIT)
    STARTTLS = Backend("192.0.2.99", 110, BackendTLS.STARTTLS)

    def test_implicit(self) -> None:
        """With implicit TLS nothing is sent or read before the handshake."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        self.assertEqual(len(attempt.transport.tls), 1)
        self.assertIs(attempt.session.phase, Phase.BACKEND_TLS)
        self.assertEqual(attempt.hears(), b"")
        attempt.transport.shakeHands()
        self.assertIs(attempt.session.phase, Phase.BACKEND_LOGIN)
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")
        attempt.says(OK, LOGGED_IN)
        self.assertEqual(self.successResultOf(attempt.result).reply, LOGGED_IN)

    def test_startTLS(self) -> None:
        """With STARTTLS the credentials wait for the handshake."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.transport.tls, [])
        self.assertEqual(attempt.says(GREETING), b"STLS\r\n")
        self.assertEqual(attempt.says(OK), b"")
        self.assertEqual(len(attempt.transport.tls), 1)
        self.assertIs(attempt.session.phase, Phase.BACKEND_TLS)
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")

    def test_plaintextBehindStartTLS(self) -> None:
        """Bytes in the clear behind the reply to STARTTLS are discarded, even if they look like a login's reply."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS))
        attempt.accept()
        attempt.says(GREETING)
        attempt.says(OK + b"+OK forged\r\n+OK forged\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")
        self.assertEqual(attempt.says(OK), b"PASS sesame\r\n")
        self.assertNoResult(attempt.result)
        attempt.says(LOGGED_IN)
        client = self.successResultOf(attempt.result)
        self.assertEqual((client.reply, leftOver(client)), (LOGGED_IN, b""))

    def test_startTLSRefused(self) -> None:
        """A backend that refuses STARTTLS gets no password in the clear; the next one is tried."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS, SECOND))
        first = attempt.accept()
        attempt.says(GREETING)
        self.assertEqual(attempt.says(b"-ERR not here\r\n"), b"")
        self.assertEqual(first.tls, [])
        self.assertEqual(len(attempt.tried), 2)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertIn("refuses STLS with -ERR, in phase backend-login, ", attempt.log[0])
        self.assertTrue(attempt.log[0].endswith(', text "-ERR not here"'), attempt.log[0])

    def test_handshakeFails(self) -> None:
        """A failed handshake is a temporary failure, and the log has the phase."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        attempt.transport.lose(SSL.Error([("SSL routines", "", "wrong version number")]))
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.transport.value(), b"")
        reason = "this port does not speak TLS from the first byte; try starttls"
        expected = f"failed the TLS handshake: wrong version number: {reason}, in phase backend-tls, "
        self.assertIn(expected, attempt.log[0])

    def test_nameless(self) -> None:
        """A unix socket has no name to verify a certificate against; without verification TLS works there too."""
        for verify in (True, False):
            backend = Backend("unix:/run/pop3", 0, BackendTLS.IMPLICIT, verify)
            attempt = Attempt(POP3, route=routeTo(backend))
            attempt.transport.connect(attempt.reactor.unixClients[0][1].buildProtocol(None))
            self.assertEqual(len(attempt.transport.tls), 0 if verify else 1)
            if verify:
                self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
                self.assertIn("backend unix:/run/pop3 has no host name to verify", attempt.log[0])
            else:
                attempt.transport.shakeHands()
                self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")

    def test_handshakeTakesTooLong(self) -> None:
        """The handshake counts towards the timeout of the login."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertTrue(attempt.transport.aborted)


BEHIND_BALANCER = Client("192.0.2.7", 40123, local="198.51.100.1", localPort=995)
PROXIED = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 995\r\n"


class ProxyProtocolTests(SynchronousTestCase):
    """C{proxy_protocol}: the header comes first. L{mailgate.test.net.test_proxyprotocol} tests its content."""

    def attempt(self, version: str, *backends: Backend, record: MailProtocol = POP3) -> Attempt:
        settings = ProxySettings(proxyProtocol=version)
        envelope = Envelope(b"laptop", True)
        return Attempt(record, settings, route=routeTo(*backends), client=BEHIND_BALANCER, envelope=envelope)

    def test_values(self) -> None:
        """The values are off, on and v2, in any case."""
        (known,) = (each for each in directives(ProxySettings) if each.name == "proxy_protocol")
        self.assertEqual([known.parse(value, "") for value in ("off", "ON", "V2")], ["off", "on", "v2"])
        for value in ("", "v1", "yes", "on v2"):
            error = self.assertRaises(ValueError, known.parse, value, "")
            self.assertIn("must be one of off, on, v2", str(error))

    def test_first(self) -> None:
        """The header is sent as soon as there is a connection, in one piece, and the login continues as usual."""
        for record, greeting, then in (
            (POP3, GREETING, b"USER joe\r\n"),
            (IMAP4, b"* OK ready\r\n", b"a1 LOGIN "),
            (SMTP, b"220 mx ESMTP\r\n", b"EHLO laptop\r\n"),
        ):
            attempt = self.attempt("on", record=record)
            attempt.accept()
            self.assertEqual(attempt.hears(), PROXIED)
            self.assertTrue(attempt.says(greeting).startswith(then))

    def test_binary(self) -> None:
        """The same with version 2."""
        attempt = self.attempt("v2")
        attempt.accept()
        self.assertEqual(attempt.hears(), headerFor(BEHIND_BALANCER, "v2"))
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")

    def test_off(self) -> None:
        """Without the directive there is no header."""
        attempt = self.attempt("off")
        attempt.accept()
        self.assertEqual(attempt.hears(), b"")

    def test_beforeTLS(self) -> None:
        """The header comes before implicit TLS and before the greeting of STARTTLS."""
        for tls, handshakes in ((BackendTLS.IMPLICIT, 1), (BackendTLS.STARTTLS, 0)):
            attempt = self.attempt("on", Backend("192.0.2.99", 995, tls))
            written: list[tuple[bytes, int]] = []
            transport = FakeTransport(IPv4Address("TCP", "192.0.2.99", 995))
            self.patch(transport, "write", lambda data, t=transport, w=written: w.append((data, len(t.tls))))
            transport.connect(attempt.reactor.tcpClients[-1][2].buildProtocol(None))
            self.assertEqual(written, [(PROXIED, 0)])
            self.assertEqual(len(transport.tls), handshakes)

    def test_everyTry(self) -> None:
        """Each backend that is tried gets one header."""
        attempt = self.attempt("on", FIRST, SECOND)
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)
        attempt.transport.lose()
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)

    def test_withoutAuthenticator(self) -> None:
        """A backend that judges the login itself gets one as well."""
        attempt = Attempt(POP3, ProxySettings(proxyProtocol="on"), route=routeTo(judged=False), client=BEHIND_BALANCER)
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)

    def test_foundOut(self) -> None:
        """Details of the client are read for the header only."""
        client = evolve(BEHIND_BALANCER, tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))

        def logIn(version: str, client: Client) -> None:
            attempt = Attempt(POP3, ProxySettings(proxyProtocol=version), client=client)
            attempt.accept()
            attempt.says(GREETING, OK, LOGGED_IN)
            self.successResultOf(attempt.result)

        asked = {version: askedOf(client, partial(logIn, version)) for version in ("off", "on", "v2")}
        self.assertEqual(asked, {"off": [], "on": ["local"], "v2": ["local", "details"]})
