"""
Tests for L{mailgate.frontend.realip}: the allowed senders of PROXY headers, and dialogues behind a header.
L{mailgate.test.frontend.test_balancer} has the tests with real sockets.
"""

from __future__ import annotations

import socket
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError, directives
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.realip import HeaderReader, RealIPSettings, Senders
from mailgate.login import Client, ProxiedAddresses
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome, Phase
from mailgate.test.support.proxyheaders import BINARY4, BINARY6, IPV4, IPV6, TEXT4, TEXT6, WITH_TLVS, binary
from mailgate.testing import CLIENT, Conversation
from mailgate.tls.settings import TLSSettings

LOGINS = {
    IMAP4: (b"* OK IMAP4 ready\r\n", (b"a LOGIN joe sesame",)),
    POP3: (b"+OK POP3 ready\r\n", (b"USER joe", b"PASS sesame")),
    SMTP: (b"220 mx.test ESMTP ready\r\n", (b"EHLO x", b"AUTH PLAIN AGpvZQBzZXNhbWU=")),
}

PLAIN = Client("192.0.2.7", 40123, local="127.0.0.1", localPort=143, session="00007.00", server="127.0.0.1:143")
"""The client in a login request without a header. A conversation's server listens on one address."""


def senders(value: str) -> Senders:
    """The parsed C{value} of C{set_real_ip_from}."""
    (known,) = directives(RealIPSettings)
    found: Senders = known.parse(value, "")
    return found


TRUSTED = RealIPSettings(senders("192.0.2.0/24"))
ELSEWHERE = RealIPSettings(senders("192.0.2.8"))


def converse(*groups: Any, record: MailProtocol = POP3, **settings: Any) -> Conversation:
    """A conversation that begins with a PROXY header."""
    return Conversation(record, *groups, proxyProtocol=True, **settings)


class SendersTests(SynchronousTestCase):
    """The values of C{set_real_ip_from}."""

    def test_forms(self) -> None:
        """Addresses, networks, both families and unix sockets, one a line."""
        found = senders("\n192.0.2.7\n10.0.0.0/8\n2001:db8::/32\n::1\nunix:\n")
        for host in ("192.0.2.7", "10.0.0.0", "10.255.255.255", "2001:db8:ffff::1", "::1", "unix:"):
            self.assertIn(host, found)
        for host in ("192.0.2.8", "11.0.0.0", "9.255.255.255", "2001:db9::", "::2"):
            self.assertNotIn(host, found)
        self.assertNotIn("unix:", senders("0.0.0.0/0\n::/0"))

    def test_mapped(self) -> None:
        """IPv4-mapped addresses count as IPv4, as peers and as networks."""
        found = senders("10.0.0.0/8")
        self.assertIn("::ffff:10.1.2.3", found)
        self.assertNotIn("::ffff:11.1.2.3", found)
        self.assertIn("10.1.2.3", senders("::ffff:10.0.0.0/104"))
        self.assertIn("::ffff:10.1.2.3", senders("::ffff:10.1.2.3"))
        self.assertNotIn("10.1.2.3", senders("::/0"))

    def test_linkLocal(self) -> None:
        """A link-local peer is compared without its interface."""
        self.assertIn("fe80::1%eth0", senders("fe80::/10"))

    def test_name(self) -> None:
        """A host name stands for all its addresses, which are looked up at once."""

        def getaddrinfo(host: str, port: None, **more: Any) -> list[Any]:
            self.assertEqual(host, "lb_1.example.com")
            inet = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [
                (*inet, ("192.0.2.7", 0)),
                (*inet, ("192.0.2.8", 0)),
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::7%lo", 0, 0, 1)),
            ]

        self.patch(socket, "getaddrinfo", getaddrinfo)
        found = senders("lb_1.example.com")
        for host in ("192.0.2.7", "192.0.2.8", "fe80::7"):
            self.assertIn(host, found)
        self.assertNotIn("192.0.2.9", found)

    def test_unresolvable(self) -> None:
        """A host name without an address is refused."""

        def getaddrinfo(*arguments: Any, **more: Any) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        self.patch(socket, "getaddrinfo", getaddrinfo)
        error = self.assertRaises(ValueError, senders, "10.0.0.1\nlb.invalid")
        self.assertEqual(str(error), 'host not found in "lb.invalid"')

    def test_invalid(self) -> None:
        """Anything else is refused with a hint."""
        for item in (
            "10.0.0.0/33",
            "[::1]",
            "::1/129",
            # nginx knows no netmasks.
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/0.0.0.255",
            "unix:/run/x",
            "10.0.0",
            "10.0.0.1 10.0.0.2",
            "a%b",
            "x/8",
            "-1",
        ):
            error = self.assertRaises(ValueError, senders, f"10.0.0.1\n{item}")
            self.assertIn(f'"{item}" is not an address, a network such as 10.0.0.0/8, a host name or unix:', str(error))
        self.assertRaises(ValueError, senders, "")

    def test_careless(self) -> None:
        """A network with host bits is accepted."""
        found = senders("10.0.0.1/8\n10.0.0.0/8\n2001:db8::1/32\n10.0.0.1\n10.0.0.1/32\n0.0.0.0/0")
        self.assertEqual(found.careless, ("10.0.0.1/8", "2001:db8::1/32"))
        self.assertIn("10.9.9.9", senders("10.0.0.1/8"))


CONFIGURATION = """
[mail]
proxy_pass = 192.0.2.99:110
set_real_ip_from =
    10.0.0.1/8
    192.0.2.1
[server pop3]
listen = 127.0.0.1:110 proxy_protocol
"""


class SettingsTests(SynchronousTestCase):
    """L{RealIPSettings} in gateway.ini."""

    def test_carelessNetwork(self) -> None:
        """Host bits cause a warning, and the gateway starts."""
        (warning,) = parse(CONFIGURATION).warnings
        self.assertIn("set_real_ip_from: low address bits of 10.0.0.1/8 are meaningless", str(warning))
        self.assertEqual(parse(CONFIGURATION.replace("10.0.0.1/8", "10.0.0.0/8")).warnings, ())

    def test_withoutHeaders(self) -> None:
        """If no address accepts headers, the directive has no effect."""
        text = CONFIGURATION.replace(" proxy_protocol", "").replace("10.0.0.1/8", "10.0.0.0/8")
        (warning,) = parse(text).warnings
        reason = 'has no effect: no server that inherits it has "proxy_protocol" in listen'
        self.assertEqual(str(warning), f"gateway.ini:4: [mail] set_real_ip_from: {reason}")
        self.assertEqual(parse(CONFIGURATION.replace("10.0.0.1/8", "unix:")).warnings, ())

    def test_indistinct(self) -> None:
        """Without the directive the clients of a load balancer share limits and a queue, which causes a warning."""
        server = "[server pop3]\nlisten = 127.0.0.1:110 proxy_protocol\nauth_http = http://127.0.0.1:9000/auth\n"
        (warning,) = parse(server).warnings
        self.assertIn("set_real_ip_from: is missing: limits and queues take all clients behind", str(warning))
        off = "limit_conn = off\nlimit_req = off\nlimit_early_drop = off\nlimit_login = off\n"
        passed = server.replace("auth_http = http://127.0.0.1:9000/auth", "proxy_pass = 127.0.0.1:143")
        self.assertEqual(parse(server + off).warnings, (warning,))
        self.assertEqual(parse(passed).warnings, (warning,))
        for harmless in (
            passed + off,
            server.replace(" proxy_protocol", ""),
            f"{server}limit_exempt = 10.0.0.0/8\n",
            f"{server}set_real_ip_from = 10.0.0.0/8\n",
        ):
            self.assertEqual(parse(harmless).warnings, (), harmless)

    def test_serversOwn(self) -> None:
        """A server's own list replaces that of [mail]."""
        settings = parse(f"{CONFIGURATION}set_real_ip_from = unix:\n").servers[0][RealIPSettings]
        self.assertEqual(settings.senders, Senders((), True))

    def test_default(self) -> None:
        """Without the directive there is no list, which differs from an empty one."""
        self.assertIsNone(RealIPSettings().senders)

    def test_refused(self) -> None:
        """A wrong value stops the start."""
        error = self.assertRaises(ConfigurationError, parse, CONFIGURATION.replace("10.0.0.1/8", "10.0.0.1/99"))
        self.assertIn("[mail] set_real_ip_from", str(error))


class HeaderTests(SynchronousTestCase):
    """The header before a dialogue."""

    def test_silence(self) -> None:
        """Neither a greeting nor TLS comes before the header; then the greeting comes at once."""
        for record, (greeting, _) in LOGINS.items():
            conversation = converse(record=record)
            self.assertEqual(conversation.hear(), b"")
            self.assertIs(conversation.server.session.phase, Phase.PROXY_HEADER)
            self.assertEqual(conversation.send(TEXT4), greeting)
            self.assertIs(conversation.server.session.phase, Phase.COMMAND)

    def test_tls(self) -> None:
        """With C{ssl} TLS begins after the header."""
        conversation = converse(ssl=True)
        self.assertEqual(conversation.transport.tls, [])
        conversation.send(BINARY6)
        self.assertEqual(len(conversation.transport.tls), 1)
        self.assertIs(conversation.server.session.phase, Phase.TLS)
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), b"+OK POP3 ready\r\n")

    def test_starttls(self) -> None:
        """STARTTLS works as usual: there is no second header inside."""
        conversation = converse(TLSSettings(starttls="on"))
        conversation.send(TEXT4)
        conversation.says(b"STLS")
        conversation.transport.shakeHands()
        self.assertIn(b"-ERR", conversation.send(TEXT4))

    def test_coalesced(self) -> None:
        """Commands in the same segment are obeyed at once; nginx waits for more input."""
        for record, (greeting, login) in LOGINS.items():
            for header in (TEXT4, BINARY6, WITH_TLVS, b"PROXY UNKNOWN\r\n"):
                conversation = converse(record=record)
                heard = conversation.send(header + b"".join(line + b"\r\n" for line in login))
                self.assertTrue(heard.startswith(greeting), heard)
                self.assertEqual([request.credentials.user for request in conversation.requests], [b"joe"])

    def test_cutAnywhere(self) -> None:
        """The same wherever the header is cut."""
        for data in (TEXT6 + b"NOOP\r\n", BINARY4 + b"NOOP\r\n"):
            for cut in range(1, len(data)):
                conversation = converse()
                heard = conversation.send(data[:cut]) + conversation.send(data[cut:])
                self.assertEqual(heard, b"+OK POP3 ready\r\n+OK\r\n")

    def test_greetingDelay(self) -> None:
        """The header does not count as early input, and the delay begins after it."""
        conversation = converse(SMTPSettings(greetingDelay=5.0), record=SMTP)
        conversation.clock.advance(3)
        self.assertEqual(conversation.send(TEXT4), b"")
        conversation.clock.advance(4)
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), b"220 mx.test ESMTP ready\r\n")

    def test_early(self) -> None:
        """Early input behind the header is refused, in the same segment too."""
        conversation = converse(SMTPSettings(greetingDelay=5.0), record=SMTP)
        self.assertTrue(conversation.send(TEXT4 + b"EHLO x\r\n").startswith(b"503 5.5.0"))
        self.assertIs(conversation.server.session.outcome, Outcome.EARLY)

    def test_broken(self) -> None:
        """An invalid header ends the connection without a reply, and the log has the reason."""
        for data, reason, shown in (
            (b"EHLO x\r\n", "is not a PROXY header", "EHLO x\\r\\n"),
            (
                b"PROXY TCP4 abc 1.2.3.4 1 2\r\n",
                "has an address that does not match its family",
                "PROXY TCP4 abc 1.2.3.4 1 2",
            ),
            (b'PROXY "TCP4"\r\n', "names a protocol other than TCP4, TCP6 and UNKNOWN", 'PROXY \\"TCP4\\"'),
            (binary(b"", 0x31), "has the unknown version 3", "\\r\\n\\r\\n"),
        ):
            for record in LOGINS:
                conversation = converse(record=record)
                self.assertEqual(conversation.send(data + b"a LOGIN joe sesame\r\n"), b"")
                self.assertTrue(conversation.closed)
                self.assertIs(conversation.server.session.outcome, Outcome.BAD_HEADER)
                (entry,) = conversation.logged()
                self.assertIn(f"bad PROXY header: client 192.0.2.7:40123, it {reason}, protocol ", entry)
                self.assertIn(f', server 127.0.0.1:143, session 00007.00, header "{shown}', entry)
                self.assertNotIn("sesame", entry)
                self.assertNotIn("\n", entry)
                self.assertIs(conversation.events[0]["log_level"], LogLevel.warn)

    def test_afterBroken(self) -> None:
        """Input after that is ignored."""
        conversation = converse()
        conversation.send(b"x")
        self.assertEqual(conversation.send(TEXT4 + b"NOOP\r\n"), b"")
        self.assertEqual(len(conversation.logged()), 1)

    def test_timeout(self) -> None:
        """The whole header has C{timeout}, however many parts arrive; then the connection ends."""
        conversation = converse()
        for at in range(5):
            conversation.clock.advance(11)
            conversation.send(TEXT4[at : at + 1])
            self.assertFalse(conversation.closed)
        conversation.clock.advance(5)
        self.assertTrue(conversation.closed)
        self.assertEqual(conversation.hear(), b"")
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)
        conversation.transport.lose()
        (entry,) = conversation.logged()
        self.assertIn("reached proxy-header, outcome client timed out, ", entry)

    def test_timeoutAfterwards(self) -> None:
        """The time of the header does not count against the dialogue."""
        conversation = converse()
        conversation.clock.advance(59)
        conversation.send(TEXT4)
        conversation.clock.advance(59)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertIn(b"Timeout", conversation.hear())

    def test_left(self) -> None:
        """A client that leaves before its header has a line of its own, like the checks of load balancers."""
        conversation = converse()
        conversation.clock.advance(2)
        self.assertEqual(conversation.factory.connections, {conversation.server})
        conversation.transport.lose()
        (entry,) = conversation.logged()
        self.assertIn("client 192.0.2.7:40123,", entry)
        self.assertIn("reached proxy-header, outcome client left without a word, seconds 2.000, ", entry)
        self.assertIn(", times proxy=2000 tls=0 ", entry)
        self.assertEqual(conversation.factory.connections, set())
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_nothingLeft(self) -> None:
        """However it ends, no timer is left and one line is logged."""
        for data in (b"", b"PRO", b"x", TEXT4, TEXT4 + b"QUIT\r\n"):
            conversation = converse()
            conversation.send(data)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual(conversation.factory.connections, set())
            self.assertEqual(len([each for each in conversation.logged() if "connection ended" in each]), 1)

    def test_stopped(self) -> None:
        """The gateway can stop while a header is awaited."""
        conversation = converse()
        conversation.server.stop()
        self.assertTrue(conversation.transport.aborted)
        conversation.transport.lose()
        self.assertIn("outcome gateway stopped", conversation.logged()[-1])

    def test_dismissed(self) -> None:
        """It can drain as well: there is no goodbye, and further input is ignored."""
        conversation = converse()
        conversation.dismiss()
        self.assertTrue(conversation.transport.disconnecting)
        self.assertFalse(conversation.transport.aborted)
        conversation.send(TEXT4 + b"QUIT\r\n")
        self.assertEqual(conversation.transport.value(), b"")
        conversation.transport.lose()
        self.assertIn("outcome gateway stopped", conversation.logged()[-1])
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_started(self) -> None:
        """The duration in the log includes the wait for the header."""
        conversation = converse()
        conversation.clock.advance(30)
        conversation.send(TEXT4)
        conversation.clock.advance(30)
        conversation.transport.lose()
        self.assertIn(", seconds 60.000, ", conversation.logged()[-1])
        self.assertIn(", times proxy=30000 tls=0 greeting=0 command=30000 auth=0 ", conversation.logged()[-1])

    def test_notAsked(self) -> None:
        """Without C{proxy_protocol} a header is an invalid command."""
        conversation = Conversation(POP3)
        conversation.hear()
        self.assertNotIsInstance(conversation.server, HeaderReader)
        self.assertIn(b"-ERR", conversation.send(TEXT4))


class ClientTests(SynchronousTestCase):
    """The client as the header describes it."""

    def clientOf(self, conversation: Conversation, header: bytes) -> Client:
        """The client in the login request after C{header}."""
        conversation.send(header)
        conversation.says(b"USER joe", b"PASS sesame")
        (request,) = conversation.requests
        return request.client

    def test_replaced(self) -> None:
        """With an allowed sender the client is that of the header everywhere."""
        for header, addresses, name in (
            (TEXT4, IPV4, "192.0.2.7:40123"),
            (BINARY6, IPV6, "[2001:db8::7]:65535"),
        ):
            conversation = converse(TRUSTED, peer=IPv4Address("TCP", "192.0.2.200", 1234))
            client = self.clientOf(conversation, header)
            self.assertEqual((client.host, client.port), (addresses.source, addresses.sourcePort))
            self.assertEqual(client.proxied, addresses)
            self.assertNotIn("192.0.2.200", repr(client))
            self.assertEqual(conversation.server.session.client, name)

    def test_told(self) -> None:
        """The log has the header's client and no trace of the sender."""
        conversation = converse(TRUSTED, peer=IPv4Address("TCP", "192.0.2.200", 1234))
        conversation.send(BINARY6 + b"rubbish\r\n" * 5)
        conversation.transport.lose()
        self.assertEqual(len(conversation.logged()), 1)
        for entry in conversation.logged():
            self.assertIn("client [2001:db8::7]:65535", entry)
            self.assertNotIn("192.0.2.200", entry)

    def test_port0(self) -> None:
        """The port in a header may be 0."""
        conversation = converse(TRUSTED)
        client = self.clientOf(conversation, b"PROXY TCP4 198.51.100.7 198.51.100.1 0 0\r\n")
        self.assertEqual((client.host, client.port), ("198.51.100.7", 0))
        self.assertEqual(conversation.server.session.client, "198.51.100.7")

    def test_withoutList(self) -> None:
        """Without a list the peer stays the client, and the header's addresses are passed on, as in nginx."""
        peer = IPv4Address("TCP", "192.0.2.200", 1234)
        conversation = converse(peer=peer)
        client = self.clientOf(conversation, TEXT6)
        self.assertEqual((client.host, client.port), ("192.0.2.200", 1234))
        self.assertEqual(client.proxied, IPV6)
        self.assertEqual(conversation.server.session.client, "192.0.2.200:1234")

    def test_withoutAddresses(self) -> None:
        """If the header has no addresses, the peer stays the client."""
        for settings in ((), (TRUSTED,)):
            for header in (b"PROXY UNKNOWN\r\n", binary(b"", 0x20, 0), binary(bytes(216), 0x21, 0x31)):
                client = self.clientOf(converse(*settings), header)
                self.assertEqual(client, PLAIN)

    def test_notListed(self) -> None:
        """The connection of a sender that is not listed closes before its header is read, and that is logged."""
        for peer, name in ((CLIENT, "192.0.2.7:40123"), (UNIXAddress(None), "unix:")):
            conversation = converse(ELSEWHERE, peer=peer)
            self.assertTrue(conversation.closed)
            self.assertEqual(conversation.send(TEXT4 + b"NOOP\r\n"), b"")
            self.assertEqual(
                conversation.logged(),
                [
                    f"bad PROXY header: client {name}, refused because set_real_ip_from does not list the client,"
                    " protocol pop3, server 127.0.0.1:143, session 00007.00"
                ],
            )
            self.assertIs(conversation.events[0]["log_level"], LogLevel.warn)
            self.assertIs(conversation.server.session.outcome, Outcome.BAD_HEADER)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertIn("outcome bad PROXY header", conversation.logged()[-1])

    def test_listed(self) -> None:
        """A listed sender is recognized by any form of its address."""
        for peer, settings in (
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), TRUSTED),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), RealIPSettings(senders("::ffff:192.0.2.7"))),
            (IPv6Address("TCP", "fe80::1%eth0", 1), RealIPSettings(senders("fe80::/10"))),
            (UNIXAddress(None), RealIPSettings(senders("unix:"))),
        ):
            client = self.clientOf(converse(settings, peer=peer), TEXT4)
            self.assertEqual(client, evolve(PLAIN, proxied=IPV4))

    def test_onlyOnce(self) -> None:
        """A client behind the sender cannot name itself with a second header."""
        conversation = converse(TRUSTED)
        conversation.send(TEXT4 + b"PROXY TCP4 203.0.113.1 198.51.100.1 1 2\r\n")
        client = self.clientOf(conversation, b"")
        self.assertEqual(client.proxied, ProxiedAddresses("192.0.2.7", 40123, "198.51.100.1", 993))

    def test_neverWithoutHeader(self) -> None:
        """A list alone does not enable headers."""
        conversation = Conversation(POP3, TRUSTED)
        self.assertEqual(self.clientOf(conversation, TEXT6), PLAIN)
