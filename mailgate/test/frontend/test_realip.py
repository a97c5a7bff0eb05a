"""
Tests for L{mailgate.frontend.realip}: who may send PROXY headers, and dialogues behind one. With real sockets:
L{mailgate.test.frontend.test_balancer}.
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
"""Who logs in where there is no header, at the one address that the server of a conversation listens at."""


def senders(value: str) -> Senders:
    """What C{set_real_ip_from} makes of C{value}."""
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
        """Addresses, networks, both families, and unix sockets, one a line."""
        found = senders("\n192.0.2.7\n10.0.0.0/8\n2001:db8::/32\n::1\nunix:\n")
        for host in ("192.0.2.7", "10.0.0.0", "10.255.255.255", "2001:db8:ffff::1", "::1", "unix:"):
            self.assertIn(host, found)
        for host in ("192.0.2.8", "11.0.0.0", "9.255.255.255", "2001:db9::", "::2"):
            self.assertNotIn(host, found)
        self.assertNotIn("unix:", senders("0.0.0.0/0\n::/0"))

    def test_mapped(self) -> None:
        """IPv4 addresses in the form of IPv6 are IPv4's, as peers and as networks."""
        found = senders("10.0.0.0/8")
        self.assertIn("::ffff:10.1.2.3", found)
        self.assertNotIn("::ffff:11.1.2.3", found)
        self.assertIn("10.1.2.3", senders("::ffff:10.0.0.0/104"))
        self.assertIn("::ffff:10.1.2.3", senders("::ffff:10.1.2.3"))
        self.assertNotIn("10.1.2.3", senders("::/0"))

    def test_linkLocal(self) -> None:
        """A peer on the link, whose interface is named with it, is compared by its address."""
        self.assertIn("fe80::1%eth0", senders("fe80::/10"))

    def test_name(self) -> None:
        """A host name stands for all of its addresses, found out at once."""

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
        """One that has none is refused."""

        def getaddrinfo(*arguments: Any, **more: Any) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        self.patch(socket, "getaddrinfo", getaddrinfo)
        error = self.assertRaises(ValueError, senders, "10.0.0.1\nlb.invalid")
        self.assertEqual(str(error), 'host not found in "lb.invalid"')

    def test_invalid(self) -> None:
        """Anything else is refused, in words that say what would do."""
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
            self.assertIn(f'"{item}" is no address, network such as 10.0.0.0/8, host name or unix:', str(error))
        self.assertRaises(ValueError, senders, "")

    def test_careless(self) -> None:
        """A network whose address has bits of a host is the network all the same."""
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
        """Bits that mean nothing are told of, and do not stop the start."""
        (warning,) = parse(CONFIGURATION).warnings
        self.assertIn("set_real_ip_from: low address bits of 10.0.0.1/8 are meaningless", str(warning))
        self.assertEqual(parse(CONFIGURATION.replace("10.0.0.1/8", "10.0.0.0/8")).warnings, ())

    def test_withoutHeaders(self) -> None:
        """Where no address takes headers the directive has no effect."""
        text = CONFIGURATION.replace(" proxy_protocol", "").replace("10.0.0.1/8", "10.0.0.0/8")
        (warning,) = parse(text).warnings
        reason = 'has no effect: no server that has it from here has "proxy_protocol" behind a listen'
        self.assertEqual(str(warning), f"gateway.ini:4: [mail] set_real_ip_from: {reason}")
        self.assertEqual(parse(CONFIGURATION.replace("10.0.0.1/8", "unix:")).warnings, ())

    def test_indistinct(self) -> None:
        """Without the directive clients of a load balancer cannot be told apart where their logins wait in turns."""
        server = "[server pop3]\nlisten = 127.0.0.1:110 proxy_protocol\nauth_http = http://127.0.0.1:9000/auth\n"
        (warning,) = parse(server).warnings
        self.assertIn("set_real_ip_from: is missing, and so all clients of the load balancer wait", str(warning))
        for harmless in (
            server.replace("auth_http = http://127.0.0.1:9000/auth", "proxy_pass = 127.0.0.1:143"),
            server.replace(" proxy_protocol", ""),
            f"{server}limit_exempt = 10.0.0.0/8\n",
            f"{server}set_real_ip_from = 10.0.0.0/8\n",
        ):
            self.assertEqual(parse(harmless).warnings, (), harmless)

    def test_serversOwn(self) -> None:
        """A server's own list hides the one for all."""
        settings = parse(f"{CONFIGURATION}set_real_ip_from = unix:\n").servers[0][RealIPSettings]
        self.assertEqual(settings.senders, Senders((), True))

    def test_default(self) -> None:
        """Without it there is no list, which is something else than one on which nobody is."""
        self.assertIsNone(RealIPSettings().senders)

    def test_refused(self) -> None:
        """What is wrong stops the start."""
        error = self.assertRaises(ConfigurationError, parse, CONFIGURATION.replace("10.0.0.1/8", "10.0.0.1/99"))
        self.assertIn("[mail] set_real_ip_from", str(error))


class HeaderTests(SynchronousTestCase):
    """The header before a dialogue."""

    def test_silence(self) -> None:
        """Nothing is said before the header, nor TLS begun; then the greeting comes at once."""
        for record, (greeting, _) in LOGINS.items():
            conversation = converse(record=record)
            self.assertEqual(conversation.hear(), b"")
            self.assertIs(conversation.server.session.phase, Phase.PROXY_HEADER)
            self.assertEqual(conversation.send(TEXT4), greeting)
            self.assertIs(conversation.server.session.phase, Phase.COMMAND)

    def test_tls(self) -> None:
        """With C{ssl} TLS begins behind the header."""
        conversation = converse(ssl=True)
        self.assertEqual(conversation.transport.tls, [])
        conversation.send(BINARY6)
        self.assertEqual(len(conversation.transport.tls), 1)
        self.assertIs(conversation.server.session.phase, Phase.TLS)
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), b"+OK POP3 ready\r\n")

    def test_starttls(self) -> None:
        """STARTTLS is as ever: no second header comes inside."""
        conversation = converse(TLSSettings(starttls="on"))
        conversation.send(TEXT4)
        conversation.says(b"STLS")
        conversation.transport.shakeHands()
        self.assertIn(b"-ERR", conversation.send(TEXT4))

    def test_coalesced(self) -> None:
        """Commands in the same segment are obeyed at once; nginx waits for more."""
        for record, (greeting, login) in LOGINS.items():
            for header in (TEXT4, BINARY6, WITH_TLVS, b"PROXY UNKNOWN\r\n"):
                conversation = converse(record=record)
                heard = conversation.send(header + b"".join(line + b"\r\n" for line in login))
                self.assertTrue(heard.startswith(greeting), heard)
                self.assertEqual([request.credentials.user for request in conversation.requests], [b"joe"])

    def test_cutAnywhere(self) -> None:
        """So they are wherever the header is cut."""
        for data in (TEXT6 + b"NOOP\r\n", BINARY4 + b"NOOP\r\n"):
            for cut in range(1, len(data)):
                conversation = converse()
                heard = conversation.send(data[:cut]) + conversation.send(data[cut:])
                self.assertEqual(heard, b"+OK POP3 ready\r\n+OK\r\n")

    def test_greetingDelay(self) -> None:
        """The header is not taken for a client that speaks first, and the delay begins behind it."""
        conversation = converse(SMTPSettings(greetingDelay=5.0), record=SMTP)
        conversation.clock.advance(3)
        self.assertEqual(conversation.send(TEXT4), b"")
        conversation.clock.advance(4)
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), b"220 mx.test ESMTP ready\r\n")

    def test_early(self) -> None:
        """Who speaks first behind the header, in the same segment too, is caught."""
        conversation = converse(SMTPSettings(greetingDelay=5.0), record=SMTP)
        self.assertTrue(conversation.send(TEXT4 + b"EHLO x\r\n").startswith(b"503 5.5.0"))
        self.assertIs(conversation.server.session.outcome, Outcome.EARLY)

    def test_broken(self) -> None:
        """What is no header ends the connection without a word, and the log says why."""
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
                (told,) = conversation.logged()
                self.assertIn(f"bad PROXY header: client 192.0.2.7:40123, it {reason}, protocol ", told)
                self.assertIn(f', server 127.0.0.1:143, session 00007.00, header "{shown}', told)
                self.assertNotIn("sesame", told)
                self.assertNotIn("\n", told)
                self.assertIs(conversation.events[0]["log_level"], LogLevel.warn)

    def test_afterBroken(self) -> None:
        """What comes afterwards, before the connection is gone, is not read."""
        conversation = converse()
        conversation.send(b"x")
        self.assertEqual(conversation.send(TEXT4 + b"NOOP\r\n"), b"")
        self.assertEqual(len(conversation.logged()), 1)

    def test_timeout(self) -> None:
        """The whole header has C{timeout}, however often a part of it comes; then the client is gone."""
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
        (told,) = conversation.logged()
        self.assertIn("reached proxy-header, outcome client timed out, ", told)

    def test_timeoutAfterwards(self) -> None:
        """The time that the header took is not the dialogue's."""
        conversation = converse()
        conversation.clock.advance(59)
        conversation.send(TEXT4)
        conversation.clock.advance(59)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertIn(b"Timeout", conversation.hear())

    def test_left(self) -> None:
        """A client that leaves before its header is a story of its own, as the checks of load balancers are."""
        conversation = converse()
        conversation.clock.advance(2)
        self.assertEqual(conversation.factory.connections, {conversation.server})
        conversation.transport.lose()
        (told,) = conversation.logged()
        self.assertIn("client 192.0.2.7:40123,", told)
        self.assertIn("reached proxy-header, outcome client left without a word, seconds 2.000, ", told)
        self.assertIn(", times proxy=2000 tls=0 ", told)
        self.assertEqual(conversation.factory.connections, set())
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_nothingLeft(self) -> None:
        """Nothing is left on the clock, however it ends, and one story is told."""
        for data in (b"", b"PRO", b"x", TEXT4, TEXT4 + b"QUIT\r\n"):
            conversation = converse()
            conversation.send(data)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual(conversation.factory.connections, set())
            self.assertEqual(len([each for each in conversation.logged() if "connection ended" in each]), 1)

    def test_stopped(self) -> None:
        """The gateway can stop while a header is waited for."""
        conversation = converse()
        conversation.server.stop()
        self.assertTrue(conversation.transport.aborted)
        conversation.transport.lose()
        self.assertIn("outcome gateway stopped", conversation.logged()[-1])

    def test_dismissed(self) -> None:
        """It can drain, too: nothing is said to who has not said where it comes from, and what it says is not heard."""
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
        """The story begins with the connection, not with the header's end."""
        conversation = converse()
        conversation.clock.advance(30)
        conversation.send(TEXT4)
        conversation.clock.advance(30)
        conversation.transport.lose()
        self.assertIn(", seconds 60.000, ", conversation.logged()[-1])
        self.assertIn(", times proxy=30000 tls=0 greeting=0 command=30000 auth=0 ", conversation.logged()[-1])

    def test_notAsked(self) -> None:
        """Where no header is asked for, one is a bad command."""
        conversation = Conversation(POP3)
        conversation.hear()
        self.assertNotIsInstance(conversation.server, HeaderReader)
        self.assertIn(b"-ERR", conversation.send(TEXT4))


class ClientTests(SynchronousTestCase):
    """Who the client is."""

    def clientOf(self, conversation: Conversation, header: bytes) -> Client:
        """As whom the authenticator knows who sends C{header} and logs in."""
        conversation.send(header)
        conversation.says(b"USER joe", b"PASS sesame")
        (request,) = conversation.requests
        return request.client

    def test_replaced(self) -> None:
        """With a sender who may, it is the one of the header, everywhere."""
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
        """So it is in the log, where nothing is left of its sender."""
        conversation = converse(TRUSTED, peer=IPv4Address("TCP", "192.0.2.200", 1234))
        conversation.send(BINARY6 + b"rubbish\r\n" * 5)
        conversation.transport.lose()
        self.assertEqual(len(conversation.logged()), 1)
        for told in conversation.logged():
            self.assertIn("client [2001:db8::7]:65535", told)
            self.assertNotIn("192.0.2.200", told)

    def test_port0(self) -> None:
        """A header may say that the port is 0."""
        conversation = converse(TRUSTED)
        client = self.clientOf(conversation, b"PROXY TCP4 198.51.100.7 198.51.100.1 0 0\r\n")
        self.assertEqual((client.host, client.port), ("198.51.100.7", 0))
        self.assertEqual(conversation.server.session.client, "198.51.100.7")

    def test_withoutList(self) -> None:
        """Without a list the peer stays the client, and what the header said is but told, as nginx does."""
        peer = IPv4Address("TCP", "192.0.2.200", 1234)
        conversation = converse(peer=peer)
        client = self.clientOf(conversation, TEXT6)
        self.assertEqual((client.host, client.port), ("192.0.2.200", 1234))
        self.assertEqual(client.proxied, IPV6)
        self.assertEqual(conversation.server.session.client, "192.0.2.200:1234")

    def test_withoutAddresses(self) -> None:
        """Where the header gives no addresses the peer stays the client, and nothing is told."""
        for settings in ((), (TRUSTED,)):
            for header in (b"PROXY UNKNOWN\r\n", binary(b"", 0x20, 0), binary(bytes(216), 0x21, 0x31)):
                client = self.clientOf(converse(*settings), header)
                self.assertEqual(client, PLAIN)

    def test_notListed(self) -> None:
        """From anybody else no header is taken: the connection is closed before one is read, and that is logged."""
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
        """Who is on the list is known by any form of its address."""
        for peer, settings in (
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), TRUSTED),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), RealIPSettings(senders("::ffff:192.0.2.7"))),
            (IPv6Address("TCP", "fe80::1%eth0", 1), RealIPSettings(senders("fe80::/10"))),
            (UNIXAddress(None), RealIPSettings(senders("unix:"))),
        ):
            client = self.clientOf(converse(settings, peer=peer), TEXT4)
            self.assertEqual(client, evolve(PLAIN, proxied=IPV4))

    def test_onlyOnce(self) -> None:
        """A client behind the sender cannot name itself by a second header."""
        conversation = converse(TRUSTED)
        conversation.send(TEXT4 + b"PROXY TCP4 203.0.113.1 198.51.100.1 1 2\r\n")
        client = self.clientOf(conversation, b"")
        self.assertEqual(client.proxied, ProxiedAddresses("192.0.2.7", 40123, "198.51.100.1", 993))

    def test_neverWithoutHeader(self) -> None:
        """A list alone does not make anybody's header count where none is asked for."""
        conversation = Conversation(POP3, TRUSTED)
        self.assertEqual(self.clientOf(conversation, TEXT6), PLAIN)
