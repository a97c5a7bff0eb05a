"""
The commands that send the client's address to backends, and the fields of a client's own ID in them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.identity import Atom, fieldsOf, idCommand, xclientCommand
from mailgate.backend.settings import ProxySettings
from mailgate.login import Client, Denial, ProxiedAddresses, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.command import CommandParser
from mailgate.test.support.findings import NotingFindings, lazyClient
from mailgate.testing import Conversation, FakeAuthenticator
from mailgate.tls.settings import TLSSettings

CLIENT = Client("192.0.2.7", 40123)
OURS = b'"x-originating-ip" "192.0.2.7" "x-originating-port" "40123"'


def said(line: bytes, *rest: bytes) -> tuple[bytes, ...]:
    """The fields of the ID command C{line}. C{rest} are literals and the text after each."""
    parser = CommandParser()
    parser.feed(b"a ID " + line)
    for literal, behind in zip(rest[::2], rest[1::2], strict=True):
        parser.feedLiteral(literal)
        parser.feed(behind)
    return fieldsOf(parser.arguments)


class FieldsTests(SynchronousTestCase):
    """L{fieldsOf}, on parsed commands."""

    def test_strings(self) -> None:
        """Names and values are quoted strings. A value may be NIL, and a string "NIL" stays a string."""
        self.assertEqual(
            said(b'("name" "Foo (Bar)" "version" NIL "os" "NIL" "vendor" nil)'),
            (b'"name" "Foo (Bar)"', b'"version" NIL', b'"os" "NIL"', b'"vendor" NIL'),
        )

    def test_literals(self) -> None:
        """A literal is a string like any other."""
        self.assertEqual(said(b"({4}", b"name", b" {3}", b"NIL", b")"), (b'"name" "NIL"',))
        self.assertEqual(said(b'("name" {1+}', b")", b' "os" "x")'), (b'"name" ")"', b'"os" "x"'))

    def test_nothing(self) -> None:
        """NIL, an empty list and no argument give no fields."""
        for line in (b"NIL", b"nil", b"()", b"", b"( )"):
            self.assertEqual(said(line), ())

    def test_noList(self) -> None:
        """Anything but a list of pairs of strings gives no fields."""
        for line in (
            b'("name" "x" "os")',
            b'("name")',
            b'"name" "x"',
            b'("name" "x"',
            b'"name" "x")',
            b'("name" ("x"))',
            b'(("name" "x"))',
            b'("name" "x") ("os" "y")',
            b'("name" "x")("os" "y")',
            b'("name" ("a" "b") "os" "y")',
            b"(name x)",
            b'("name" x)',
            b'("version" 1.0)',
            b'(NIL "x")',
            b'("name" NIL()',
            b'("name" NIL) x',
            b')"name" "x"(',
        ):
            self.assertEqual(said(line), (), line)

    def test_escaped(self) -> None:
        """Quotation marks and backslashes are escaped for the backend."""
        self.assertEqual(
            said(rb'("na\"me" "x\\\" \"x-originating-ip\" \"1.2.3.4")'),
            (rb'"na\"me" "x\\\" \"x-originating-ip\" \"1.2.3.4"',),
        )
        self.assertEqual(said(b'("name" {2}', b'\\"', b")"), (rb'"name" "\\\""',))

    def test_notPrintable(self) -> None:
        """A field with anything but printable ASCII is left out: it could end the line or need a literal."""
        for text in (b"x\r\na LOGIN joe x", b"\n", b"\r", b"\0", b"\x1b[2J", b"caf\xc3\xa9", b"\x7f", b"\t"):
            self.assertEqual(said(b'("os" "y" "name" {9}', text, b")"), (b'"os" "y"',))
            self.assertEqual(said(b'("os" "y" {9}', text, b' "x")'), (b'"os" "y"',))

    def test_namesOfGateways(self) -> None:
        """Fields that only gateways may add are left out, in any case."""
        for name in (
            b"x-originating-ip",
            b"X-Originating-IP",
            b"x-originating-port",
            b"X-CONNECTED-IP",
            b"x-connected-name",
            b"x-session-id",
            b"x-session-ext-id",
            b"x-proxy-ttl",
            b"x-forward-user",
            b"x-client-transport",
            b"x-multiplex",
            b"X-VIA",
            b"x-anything",
        ):
            self.assertEqual(said(b'("name" "x" "%s" "1.2.3.4")' % name), (b'"name" "x"',))
            self.assertEqual(said(b'("name" "x" {9}', name, b' "1.2.3.4")'), (b'"name" "x"',))
            # A server that ignores blanks does not see one either.
            self.assertEqual(said(b'(" %s" "1.2.3.4" "%s " "1.2.3.4")' % (name, name)), ())
        self.assertEqual(said(b'("xyz" "x" "ax-originating-ip" "y")'), (b'"xyz" "x"', b'"ax-originating-ip" "y"'))

    def test_bounds(self) -> None:
        """The limits of RFC 2971: names of 30 bytes, values of 1,024, 30 fields."""
        name, value = b"n" * 30, b"v" * 1024
        self.assertEqual(said(b'("%s" "%s" "os" "")' % (name, value)), (b'"%s" "%s"' % (name, value), b'"os" ""'))
        self.assertEqual(said(b'("%sn" "x" "os" "%sv" "" "x" "a" "b")' % (name, value)), (b'"a" "b"',))
        many = [Atom(b"("), *(b"n" if i % 2 else b"v" for i in range(100)), Atom(b")")]
        self.assertEqual(len(fieldsOf(many)), 30)


class IDCommandTests(SynchronousTestCase):
    """L{idCommand}."""

    def command(self, *fields: bytes, **changes: Any) -> bytes:
        command = idCommand(b"t", Client(**{"host": "192.0.2.7", "port": 40123, **changes}), fields)
        self.assertIn(command[-2:], (b"\r\n", b""))
        return command[:-2]

    def test_addresses(self) -> None:
        """The client's address and port come first."""
        self.assertEqual(self.command(), b"t ID (" + OURS + b")")

    def test_ipv6(self) -> None:
        """An IPv6 address has no brackets and no interface; an IPv4-mapped one becomes IPv4."""
        for host, told in (
            ("2001:db8::7", b"2001:db8::7"),
            ("fe80::1%eth0", b"fe80::1"),
            ("::ffff:192.0.2.9", b"192.0.2.9"),
        ):
            self.assertIn(b'"x-originating-ip" "%s" ' % told, self.command(host=host))

    def test_connected(self) -> None:
        """The address and port to which the client connected follow, if known."""
        self.assertEqual(
            self.command(local="198.51.100.1", localPort=993),
            b"t ID (" + OURS + b' "x-connected-ip" "198.51.100.1" "x-connected-port" "993")',
        )
        self.assertEqual(self.command(local="unix:"), b"t ID (" + OURS + b")")

    def test_balancer(self) -> None:
        """Behind a load balancer these are the balancer's; addresses of an untrusted header are left out."""
        there = ProxiedAddresses("192.0.2.7", 40123, "203.0.113.1", 993)
        here = evolve(CLIENT, local="127.0.0.1", localPort=143)
        told = idCommand(b"t", evolve(here, proxied=there))
        self.assertIn(b'"x-connected-ip" "203.0.113.1" "x-connected-port" "993"', told)
        told = idCommand(b"t", evolve(here, proxied=evolve(there, source="198.51.100.99")))
        self.assertIn(b'"x-connected-ip" "127.0.0.1" "x-connected-port" "143"', told)

    def test_noPort(self) -> None:
        """Port 0, which a PROXY header may have, is left out."""
        self.assertEqual(self.command(port=0), b't ID ("x-originating-ip" "192.0.2.7")')

    def test_session(self) -> None:
        """The session's id is included if servers accept it: at most 64 bytes."""
        self.assertEqual(self.command(session="00000007-1"), b"t ID (" + OURS + b' "x-session-id" "00000007-1")')
        self.assertIn(b"s" * 64, self.command(session="s" * 64))
        for name in ("s" * 65, "a b", "a\r\nb", "\xe9"):
            self.assertEqual(self.command(session=name), self.command())

    def test_said(self) -> None:
        """The client's own fields come after ours."""
        self.assertEqual(self.command(b'"name" "x"', b'"os" NIL'), b"t ID (" + OURS + b' "name" "x" "os" NIL)')

    def test_unix(self) -> None:
        """A client on a unix socket has no address; the rest is sent, or nothing."""
        self.assertEqual(self.command(host="unix:", port=0), b"")
        self.assertEqual(self.command(b'"name" "x"', host="unix:", port=0), b't ID ("name" "x")')
        self.assertEqual(self.command(host="unix:", port=0, session="s-1"), b't ID ("x-session-id" "s-1")')

    def test_most(self) -> None:
        """There are 30 fields in all, ours included."""
        command = self.command(*(b'"n%d" ""' % i for i in range(30)))
        self.assertEqual(command.count(b'"'), 4 * 30)
        self.assertIn(OURS, command)
        self.assertIn(b'"n27"', command)
        self.assertNotIn(b'"n28"', command)

    def test_longest(self) -> None:
        """The line is within the limit of servers, however long the client's fields are."""
        for length in (1000, 1020, 1024):
            command = self.command(*(b'"n" "%s"' % (b"v" * length) for _ in range(30)))
            self.assertLessEqual(len(command + b"\r\n"), 8000)
            self.assertEqual(command.count(b'"n"'), 7)
            self.assertTrue(command.endswith(b'")'))


class FoundOutTests(SynchronousTestCase):
    """Details that need a system call."""

    def test_local(self) -> None:
        """The local address is sent if it is known, and not read for a backend."""
        for command, known in ((partial(idCommand, b"t"), b"x-connected-ip"), (xclientCommand, b"DESTADDR")):
            findings = NotingFindings()
            client = lazyClient(findings, CLIENT)
            self.assertNotIn(known, command(client))
            self.assertEqual(findings.asked, [])
            self.assertTrue(client.local)
            self.assertIn(known, command(client))
            self.assertEqual(findings.asked, ["local"])


class XCLIENTCommandTests(SynchronousTestCase):
    """L{xclientCommand}."""

    def command(self, **changes: Any) -> bytes:
        command = xclientCommand(Client(**{"host": "192.0.2.7", "port": 40123, **changes}))
        self.assertIn(command[-2:], (b"\r\n", b""))
        return command[:-2]

    def test_addresses(self) -> None:
        """Address and port of the client. IPv6 addresses have no prefix, unlike in SMTP."""
        self.assertEqual(self.command(), b"XCLIENT ADDR=192.0.2.7 PORT=40123")
        self.assertEqual(self.command(host="2001:db8::7"), b"XCLIENT ADDR=2001:db8::7 PORT=40123")
        self.assertEqual(self.command(host="::ffff:192.0.2.9"), b"XCLIENT ADDR=192.0.2.9 PORT=40123")
        self.assertEqual(self.command(host="fe80::1%eth0"), b"XCLIENT ADDR=fe80::1 PORT=40123")

    def test_rest(self) -> None:
        """The destination of the client and the session, if known."""
        self.assertEqual(
            self.command(local="::1", localPort=995, session="00000007-1"),
            b"XCLIENT ADDR=192.0.2.7 PORT=40123 DESTADDR=::1 DESTPORT=995 SESSION=00000007-1",
        )
        self.assertEqual(self.command(session="a b"), self.command())

    def test_noPort(self) -> None:
        """Dovecot refuses the whole command for port 0."""
        self.assertEqual(self.command(port=0), b"XCLIENT ADDR=192.0.2.7")

    def test_unix(self) -> None:
        """A client on a unix socket has no address."""
        self.assertEqual(self.command(host="unix:", port=0), b"")
        self.assertEqual(self.command(host="unix:", port=0, session="s-1"), b"XCLIENT SESSION=s-1")

    def test_longest(self) -> None:
        """It is shorter than the 1,024 bytes that Dovecot accepts."""
        address = "ffff:" * 7 + "ffff"
        longest = self.command(host=address, port=65535, local=address, localPort=65535, session="s" * 64)
        self.assertLess(len(longest), 250)


class DialogueTests(SynchronousTestCase):
    """The reply to an IMAP client's ID, and the fields that are kept for the login."""

    def told(self, *lines: bytes, **settings: Any) -> tuple[bytes, ...]:
        """The fields in the login of a client that sends C{lines} first."""
        conversation = Conversation(IMAP4, *settings.pop("groups", ()), **settings)
        conversation.hear()
        for line in lines:
            answer = b"* ID NIL\r\ni OK completed\r\n"
            self.assertIn(conversation.says(b"i ID " + line), (answer, b"+ OK\r\n"))
        conversation.says(b"a LOGIN joe sesame")
        return conversation.requests[0].envelope.fields

    def test_kept(self) -> None:
        """The fields are kept, and we answer ID."""
        self.assertEqual(self.told(b'("name" "x")'), (b'"name" "x"',))
        self.assertEqual(self.told(), ())

    def test_first(self) -> None:
        """The first ID with fields counts, as in servers."""
        self.assertEqual(self.told(b"NIL", b'("name" "x")', b'("name" "y")', b"NIL"), (b'"name" "x"',))

    def test_malformed(self) -> None:
        """An invalid list is answered as usual and not kept."""
        self.assertEqual(self.told(b'("name" ("x")', b'"name"', b"(name x)"), ())

    def test_tooMany(self) -> None:
        """More than 64 strings, or nested ones, are not a list of pairs."""
        conversation = Conversation(IMAP4)
        conversation.hear()
        for count in (64, 65, 1000):
            strings = b" ".join([b'"n"'] * count)
            self.assertEqual(conversation.says(b"i ID (((" + strings + b")))"), b"* ID NIL\r\ni OK completed\r\n")
        conversation.says(b"a LOGIN joe sesame")
        self.assertEqual(conversation.requests[0].envelope.fields, ())

    def test_forgottenWithTLS(self) -> None:
        """Fields from before STARTTLS are forgotten: an attacker may have sent them."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="on"))
        conversation.says(b'i ID ("name" "x")', b"s STARTTLS")
        conversation.transport.shakeHands()
        conversation.says(b"a LOGIN joe sesame")
        self.assertEqual(conversation.requests[0].envelope.fields, ())

    def test_again(self) -> None:
        """Each login attempt has the fields."""
        conversation = Conversation(IMAP4, authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        conversation.says(b'i ID ("name" "x")', b"a LOGIN joe x", b"b LOGIN joe sesame")
        for request in conversation.requests:
            self.assertEqual(request.envelope.fields, (b'"name" "x"',))
        self.assertEqual(len(conversation.requests), 2)

    def test_off(self) -> None:
        """Nothing is kept that no backend gets."""
        for groups in ((ProxySettings(identity="off"),), (ProxySettings(proxyProtocol="v2"),)):
            self.assertEqual(self.told(b'("name" "x")', groups=groups), ())

    def test_local(self) -> None:
        """If listen names one address, it is the client's destination."""
        conversation = Conversation(IMAP4)
        conversation.says(b"a LOGIN joe sesame")
        client = conversation.requests[0].client
        self.assertEqual((client.local, client.localPort), ("127.0.0.1", 143))
