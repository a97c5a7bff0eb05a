"""
The SMTP backends to which clients are handed over, and the warnings about those that let an address name other clients.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.settings import ProxySettings
from mailgate.login import Backend, BackendTLS, Client, Credentials, Denial, Envelope, Method, Refusal, Trouble
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.backend.test_client import FIRST, SECOND
from mailgate.testing import Attempt, routeTo

TEMPORARY = Denial(Trouble.TEMPORARY)
LOGIN: dict[str, Any] = {"envelope": Envelope(b"laptop", True)}
RECIPIENT: dict[str, Any] = {
    "route": routeTo(user=b"", password=None),
    "credentials": Credentials(Method.NONE),
    "envelope": Envelope(b"laptop", True, b"MAIL FROM:<a@c.test>", b"RCPT TO:<b@c.test>"),
}
NAMED = Client("192.0.2.7", 40123, local="192.0.2.1", localPort=25)
"""A client with an address for a PROXY header."""

NAMELESS = (Client("unix:", local="unix:"), Client("192.0.2.7", 40123, local="unix:"))
"""Clients for which the header says UNKNOWN: the backend then uses our own address."""

XCLIENT = b"XCLIENT NAME ADDR LOGIN"
BOTH = (b"XCLIENT", b"XFORWARD")


def offering(*words: bytes) -> bytes:
    """A reply to EHLO."""
    lines = (b"mx", *words)
    return b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"


class TrustCase(SynchronousTestCase):
    """One login, or one recipient, at a backend with certain offers."""

    def begin(self, xclient: str, offers: bytes, request: dict[str, Any], *groups: Any, **settings: Any) -> bytes:
        """The bytes that a backend gets that C{offers} this to our EHLO."""
        self.attempt = Attempt(SMTP, SMTPSettings(xclient=xclient, **settings), *groups, **request)
        self.attempt.accept()
        self.assertTrue(self.attempt.says(b"220 ready\r\n").endswith(b"EHLO mx.test\r\n"))
        return self.attempt.says(offers)

    def assertRefused(self, *words: str, connections: int = 1) -> None:
        """The client gets a temporary failure, and one error contains C{words}."""
        self.assertEqual(self.successResultOf(self.attempt.result), TEMPORARY)
        self.assertEqual(self.attempt.levels, ["error"] * connections)
        for word in words:
            self.assertIn(word, self.attempt.log[0])
        self.assertTrue(self.attempt.transport.aborted)

    def assertDone(self, *replies: bytes) -> None:
        """After C{replies} the client is handed over."""
        self.attempt.says(*replies)
        self.assertIsInstance(self.successResultOf(self.attempt.result), ProxyClient)


class TrustTests(TrustCase):
    """The rules for the hand-over."""

    def test_off(self) -> None:
        """
        With off there is no hand-over to a backend that offers XCLIENT or XFORWARD, and nothing more is sent to it.
        """
        for word in (b"XCLIENT", XCLIENT, b"xclient addr", b"XClient\tADDR", b"XFORWARD", b"xforward NAME ADDR"):
            setting = f"smtpd_authorized_{word.split()[0].decode().lower()}_hosts"
            for request in (LOGIN, RECIPIENT, {**LOGIN, "route": routeTo(judged=False)}):
                for proxyAuth in (False, True):
                    self.assertEqual(self.begin("off", offering(b"SIZE", word), request, proxyAuth=proxyAuth), b"")
                    self.assertRefused("xclient = ", setting)

    def test_offByHelo(self) -> None:
        """The same for clients that said HELO or nothing."""
        for envelope in (Envelope(b"laptop", False), Envelope()):
            self.assertEqual(self.begin("off", offering(XCLIENT), {"envelope": envelope}), b"")
            self.assertRefused("xclient = off")

    def test_offElsewhere(self) -> None:
        """Another backend of the account is tried."""
        self.begin("off", offering(XCLIENT), {**LOGIN, "route": routeTo(FIRST, SECOND)})
        self.assertEqual(len(self.attempt.tried), 2)
        self.attempt.accept()
        self.attempt.says(b"220 ready\r\n")
        self.assertDone(offering(b"SIZE"))

    def test_offOtherWords(self) -> None:
        """Words that only begin with these, and the host's name, are not offers."""
        for offers in (offering(b"XCLIENTS", b"XFORWARDED", b"X XCLIENT"), b"250-XCLIENT ADDR\r\n250 XFORWARD2\r\n"):
            self.begin("off", offers, LOGIN)
            self.assertDone()
            self.assertEqual(self.attempt.log, [])

    def test_offBehindTLS(self) -> None:
        """With TLS to the backend, the offers under TLS count."""
        secured = {**LOGIN, "route": routeTo(Backend("192.0.2.99", 25, BackendTLS.STARTTLS))}
        for inClear, underTLS in ((offering(b"STARTTLS"), offering(XCLIENT)), (offering(b"STARTTLS", XCLIENT),) * 2):
            self.assertEqual(self.begin("off", inClear, secured), b"STARTTLS\r\n")
            self.attempt.says(b"220 go\r\n")
            self.attempt.transport.shakeHands()
            self.attempt.says(underTLS)
            self.assertRefused("xclient = off")

    def test_offPassedOn(self) -> None:
        """With proxy_pass_error_message on there is no reply of the backend to pass on."""
        self.begin("off", offering(XCLIENT), RECIPIENT, ProxySettings(passErrorMessage=True))
        self.assertRefused("xclient = off")

    def test_forwardAlone(self) -> None:
        """With auto, XFORWARD without XCLIENT is refused as with off: the gateway has sent no XCLIENT."""
        for proxyAuth in (False, True):
            self.assertEqual(self.begin("auto", offering(b"XFORWARD NAME"), LOGIN, proxyAuth=proxyAuth), b"")
            self.assertRefused("XFORWARD", "smtpd_authorized_xforward_hosts", "smtpd_authorized_xclient_hosts")

    def test_forwardBoth(self) -> None:
        """After XCLIENT the backend decides by the client's address."""
        for xclient in ("auto", "on"):
            heard = self.begin(xclient, offering(b"XFORWARD NAME", XCLIENT), LOGIN)
            self.assertTrue(heard.startswith(b"XCLIENT ADDR="), heard)
            self.assertDone(b"220 ready\r\n", offering(b"SIZE"))
            self.assertEqual(self.attempt.log, [])

    def test_required(self) -> None:
        """Under smtp_auth none auto requires XCLIENT: otherwise clients would send as the gateway."""
        for offers in (offering(b"SIZE"), offering(b"XFORWARD"), b"250 mx\r\n"):
            self.assertEqual(self.begin("auto", offers, RECIPIENT), b"")
            self.assertRefused("no XCLIENT", "smtpd_authorized_xclient_hosts", "proxy_protocol")

    def test_requiredByHelo(self) -> None:
        """A backend without EHLO cannot get XCLIENT either."""
        request = {**RECIPIENT, "envelope": Envelope(b"laptop", False, b"MAIL FROM:<>", b"RCPT TO:<b>")}
        self.assertEqual(self.begin("auto", b"502 what\r\n", request), b"HELO mx.test\r\n")
        self.assertEqual(self.attempt.says(b"250 mx\r\n"), b"")
        self.assertRefused("no XCLIENT")

    def test_notRequired(self) -> None:
        """A login does not require it, also if none is configured beside other methods."""
        self.begin("auto", offering(b"SIZE"), LOGIN, auth=("plain", "none"))
        self.assertDone()

    def test_refusedXCLIENT(self) -> None:
        """A refused XCLIENT is a temporary failure; for a recipient in every configuration."""
        refusal = b"550 5.7.0 insufficient authorization\r\n"
        for xclient in ("auto", "on"):
            for proxy in (ProxySettings(), ProxySettings(passErrorMessage=True)):
                self.begin(xclient, offering(XCLIENT), RECIPIENT, proxy)
                self.attempt.says(refusal)
                self.assertRefused("refuses XCLIENT", "smtpd_authorized_xclient_hosts", "proxy_protocol")
        self.begin("on", offering(b"SIZE"), LOGIN, ProxySettings(passErrorMessage=True))
        self.attempt.says(refusal)
        self.assertEqual(self.successResultOf(self.attempt.result), Refusal(refusal, True))

    def byHeader(self, xclient: str, version: str, request: dict[str, Any], **settings: Any) -> bytes:
        """The bytes that a backend gets after a PROXY header with the client's address."""
        proxy = ProxySettings(proxyProtocol=version)
        request = {**request, "client": NAMED}
        self.attempt = Attempt(SMTP, SMTPSettings(xclient=xclient, **settings), proxy, **request)
        self.attempt.accept()
        self.attempt.hears()
        return self.attempt.says(b"220 ready\r\n")

    def test_header(self) -> None:
        """
        After a PROXY header with the client's address no XCLIENT is sent or required: the client's own address counts,
        and its own greeting, or none.
        """
        for version, xclient in product(("on", "v2"), ("auto", "on", "off")):
            self.assertEqual(self.byHeader(xclient, version, LOGIN), b"EHLO laptop\r\n")
            self.assertDone(offering(b"SIZE"))
            self.assertEqual(
                self.byHeader(xclient, version, {"envelope": Envelope(b"laptop", False)}), b"HELO laptop\r\n"
            )
            self.assertDone(b"250 mx\r\n")
            self.assertEqual(self.byHeader(xclient, version, {}), b"NOOP\r\n")
            self.assertDone(b"250 ok\r\n")
            self.assertEqual(self.byHeader(xclient, version, {}, proxyAuth=True), b"EHLO mx.test\r\n")
            self.assertTrue(self.attempt.says(offering(b"SIZE")).startswith(b"AUTH PLAIN "))
            self.assertEqual(self.byHeader(xclient, version, RECIPIENT), b"EHLO laptop\r\n")
            self.assertEqual(self.attempt.says(offering(b"SIZE")), b"MAIL FROM:<a@c.test>\r\n")
            self.assertDone(b"250 ok\r\n", b"250 ok\r\n")
            ungreeted = {**RECIPIENT, "envelope": Envelope(b"", False, b"MAIL FROM:<>", b"RCPT TO:<b>")}
            self.assertEqual(self.byHeader(xclient, version, ungreeted), b"MAIL FROM:<>\r\n")
            self.assertEqual(self.attempt.log, [])

    def test_headerRefused(self) -> None:
        """
        A backend that treats the header as a command uses our own address. Whatever it offers, there is no hand-over,
        whether its refusal comes before or after our own command.
        """
        refusal = b"502 5.5.2 Error: command not recognized\r\n"
        ungreeted = {**RECIPIENT, "envelope": Envelope(b"", False, b"MAIL FROM:<>", b"RCPT TO:<b>")}
        byHELO = {"envelope": Envelope(b"laptop", False)}
        for xclient, request in product(("auto", "off"), (LOGIN, byHELO, {}, RECIPIENT, ungreeted)):
            self.byHeader(xclient, "on", request)
            self.attempt.says(refusal)
            self.assertEqual(self.successResultOf(self.attempt.result), TEMPORARY, (xclient, request))
            self.attempt = Attempt(
                SMTP, SMTPSettings(xclient=xclient), ProxySettings(proxyProtocol="on"), **request, client=NAMED
            )
            self.attempt.accept()
            self.attempt.says(b"220 ready\r\n" + refusal)
            self.assertEqual(self.successResultOf(self.attempt.result), TEMPORARY, (xclient, request))

    def test_namelessHeaderRefused(self) -> None:
        """That refusal does not mean that the server has no EHLO, so its offers are still checked."""
        for client, xclient in product(NAMELESS, ("auto", "off")):
            request = {"envelope": Envelope(b"laptop", False), "client": client}
            proxy = ProxySettings(proxyProtocol="on")
            self.begin(xclient, b"502 5.5.2 Error: command not recognized\r\n", request, proxy)
            self.assertRefused("refuses EHLO")

    def test_headerTrusted(self) -> None:
        """
        A backend that offers XCLIENT to a client after the header trusts the client's address: that causes a warning.
        """
        for xclient in ("auto", "off"):
            self.byHeader(xclient, "on", LOGIN)
            self.assertDone(offering(XCLIENT))
            self.assertEqual(self.attempt.levels, ["warn"])

    def test_headerWithoutAddress(self) -> None:
        """After a header without an address the backend uses our own, and all is as without it."""
        for client in NAMELESS:
            for version in ("on", "v2"):
                proxy = ProxySettings(proxyProtocol=version)
                self.begin("off", offering(XCLIENT), {**LOGIN, "client": client}, proxy)
                self.assertRefused("xclient = off")
                self.begin("auto", offering(b"SIZE"), {**RECIPIENT, "client": client}, proxy)
                self.assertRefused("no XCLIENT")
                heard = self.begin("auto", offering(XCLIENT), {**RECIPIENT, "client": client}, proxy)
                self.assertTrue(heard.startswith(b"XCLIENT ADDR="), heard)


class ConcernTests(TrustCase):
    """Warnings about a backend, once each, although clients are handed over."""

    def handOver(self, xclient: str, offers: bytes, *groups: Any, **settings: Any) -> list[str]:
        """The warnings about a backend that C{offers} this after our XCLIENT."""
        self.begin(xclient, offering(XCLIENT), LOGIN, *groups, **settings)
        self.assertDone(b"220 ready\r\n", offers)
        return self.attempt.log

    def test_stillTrusted(self) -> None:
        """An offer of XCLIENT or XFORWARD after ours causes a warning with the setting to check."""
        for xclient in ("auto", "on"):
            for word in BOTH:
                (line,) = self.handOver(xclient, offering(word + b" NAME"))
                setting = f"smtpd_authorized_{word.decode().lower()}_hosts"
                self.assertIn(f"backend 192.0.2.99:110 offers {word.decode()} to the client", line)
                self.assertIn(setting, line)
                self.assertIn("client 192.0.2.7:40123", line)
                self.assertEqual(self.attempt.levels, ["warn"])
            self.assertEqual(len(self.handOver(xclient, offering(*BOTH))), 2)
            self.assertEqual(self.handOver(xclient, offering(b"SIZE")), [])

    def test_once(self) -> None:
        """The warning comes once for each backend, however many clients there are."""
        self.handOver("auto", offering(b"XCLIENT"))
        for backend in (FIRST, SECOND, SECOND):
            self.attempt.route = routeTo(backend)
            self.attempt.result = self.attempt.again()
            self.attempt.accept()
            self.attempt.says(b"220 ready\r\n", offering(XCLIENT))
            self.assertDone(b"220 ready\r\n", offering(b"XCLIENT"))
        self.assertEqual([line.split()[5] for line in self.attempt.log], ["192.0.2.99:110", "192.0.2.100:110"])

    def test_bounded(self) -> None:
        """An authentication service may name any number of backends: the memory of warnings is limited."""
        self.handOver("auto", offering(b"XCLIENT"))
        connector = self.attempt.connector
        for number in range(3000):
            self.attempt.session.backend = f"backend{number}:25"
            connector._warn(("offers XCLIENT",), self.attempt.session)
        self.assertLessEqual(len(connector._logged), 1024)

    def test_notHandedOver(self) -> None:
        """A failed login causes no warning."""
        self.begin("auto", offering(XCLIENT), LOGIN, proxyAuth=True)
        self.attempt.says(b"220 ready\r\n", offering(b"XCLIENT", b"AUTH PLAIN"), b"535 no\r\n")
        self.successResultOf(self.attempt.result)
        self.assertNotIn("warn", self.attempt.levels)

    def test_ungreeted(self) -> None:
        """If no EHLO follows, because the client sent none, nothing more is sent to find out."""
        for envelope, heard in ((Envelope(), b""), (Envelope(b"laptop", False), b"HELO laptop\r\n")):
            self.begin("auto", offering(XCLIENT), {"envelope": envelope})
            self.assertEqual(self.attempt.says(b"220 ready\r\n"), heard)
            if heard:
                self.attempt.says(b"250 mx\r\n")
            self.assertDone()
            self.assertEqual(self.attempt.log, [])

    def test_chunking(self) -> None:
        """
        An announced CHUNKING that the backend does not offer causes a warning: it would execute messages as commands.
        """
        announced = {"capabilities": ("SIZE 10", "chunking")}
        (line,) = self.handOver("auto", offering(b"SIZE"), **announced)
        self.assertIn("offers no CHUNKING", line)
        self.assertIn("smtp_capabilities", line)
        self.assertEqual(self.handOver("auto", offering(b"CHUNKING"), **announced), [])
        self.assertEqual(self.handOver("auto", offering(b"SIZE")), [])
        self.begin("off", offering(b"SIZE"), {"envelope": Envelope(b"laptop", False)}, **announced)
        self.assertDone()
        self.assertEqual(self.attempt.log, [])
