"""
Tests for L{mailgate.net.listen}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, SocketOptions, directives
from mailgate.net.listen import ListenSettings


class ListenSettingsTests(SynchronousTestCase):
    """The values of C{listen}."""

    def parse(self, value: str) -> tuple[ListenAddress, ...]:
        (found,) = (each for each in directives(ListenSettings) if each.name == "listen")
        parsed: tuple[ListenAddress, ...] = found.parse(value, "")
        return parsed

    def test_forms(self) -> None:
        """It takes nginx's forms of addresses, and keeps the text."""
        forms = {
            "143": ("0.0.0.0", 143),
            "*:143": ("0.0.0.0", 143),
            "127.0.0.1:143": ("127.0.0.1", 143),
            "[::]:143": ("::", 143),
            "[2001:db8::1]:65535": ("2001:db8::1", 65535),
            "unix:/run/mailgate/imap": ("unix:/run/mailgate/imap", 0),
        }
        for text, place in forms.items():
            self.assertEqual(self.parse(text), (ListenAddress(*place, False, text),))

    def test_ssl(self) -> None:
        """C{ssl} after an address means TLS from the first byte. It is not part of the text of the address."""
        self.assertEqual(self.parse("[::]:993 ssl"), (ListenAddress("::", 993, True, "[::]:993"),))
        self.assertEqual(self.parse("unix:/run/imaps  ssl")[0].ssl, True)

    def test_several(self) -> None:
        """Each line has one address."""
        found = self.parse("\n143\n  993 ssl\n\n[::]:993 ssl\n")
        self.assertEqual([str(each) for each in found], ["0.0.0.0:143", "0.0.0.0:993", "[::]:993"])
        self.assertEqual([each.ssl for each in found], [False, True, True])

    def test_range(self) -> None:
        """A range of ports stands for an address with each of them."""
        for text, host in (("1000-1002", "0.0.0.0"), ("*:1000-1002", "0.0.0.0"), ("[::1]:1000-1002", "::1")):
            found = self.parse(f"{text} ssl")
            self.assertEqual(found, tuple(ListenAddress(host, port, True, text) for port in (1000, 1001, 1002)))
        self.assertEqual(len(self.parse("127.0.0.1:7-7")), 1)
        for value in ("1002-1000", "127.0.0.1:65535-65536", "0-1", "1-"):
            self.assertRaises(ValueError, self.parse, value)
        self.assertEqual(self.parse("unix:/run/a:1-2")[0].host, "unix:/run/a:1-2")

    def test_name(self) -> None:
        """A host name stands for each of its addresses, once."""
        found = self.parse("localhost:143 ssl")
        self.assertLessEqual({each.host for each in found}, {"127.0.0.1", "::1"})
        self.assertEqual(len(found), len({each.host for each in found}))
        self.assertTrue(all(each.ssl and each.port == 143 for each in found))

    def test_underscore(self) -> None:
        """The system decides which names exist. The name of a container may have an underscore."""

        def getaddrinfo(host: str, port: int, **hints: Any) -> list[Any]:
            self.assertEqual(host, "mail_gate")
            return [(2, 1, 6, "", ("192.0.2.1", port)), (10, 1, 6, "", ("2001:db8::1", port, 0, 0))]

        self.patch(socket, "getaddrinfo", getaddrinfo)
        found = self.parse("mail_gate:143")
        self.assertEqual([str(each) for each in found], ["192.0.2.1:143", "[2001:db8::1]:143"])

    def test_invalid(self) -> None:
        """Anything else is refused, and the message quotes the line."""
        for value in (
            "0",
            "65536",
            "*:0",
            "127.0.0.1",
            "127.0.0.1:",
            "::1:143",
            "[::1]",
            "unix:run/imap",
            "a..b:143",
            "127.1:143",
        ):
            error = self.assertRaises(ValueError, self.parse, f"25\n{value}")
            self.assertIn(f'"{value}"', str(error))

    def test_empty(self) -> None:
        """An empty value is refused."""
        self.assertRaises(ValueError, self.parse, "\n")

    def test_unknownParameter(self) -> None:
        """An unknown parameter is refused, and the message suggests a similar one."""
        error = self.assertRaises(ValueError, self.parse, "993 sls")
        self.assertIn('invalid parameter "sls"; use one of ssl, proxy_protocol, bind, ', str(error))
        self.assertTrue(str(error).endswith("; did you mean ssl?"), error)
        for parameter, meant in (("backlog", "backlog="), ("proxy-protocol", "proxy_protocol"), ("ssl=on", "ssl")):
            self.assertIn(f"did you mean {meant}?", self.refusal(f"993 {parameter}"))
        for parameter in ("default_server", "reuseport", "deferred", "fastopen=3", "http2", "quic", "=", "SSL"):
            self.assertIn(f'invalid parameter "{parameter}"', self.refusal(f"993 {parameter}"))

    def test_proxyProtocol(self) -> None:
        """C{proxy_protocol} expects a PROXY header. Parameters come in any order."""
        for value in ("993 ssl proxy_protocol", "993 proxy_protocol bind ssl"):
            (address,) = self.parse(value)
            self.assertTrue(address.ssl and address.proxyProtocol)
            self.assertEqual(address.socket, SocketOptions())
        self.assertFalse(self.parse("993 ssl")[0].proxyProtocol)

    def test_socketOptions(self) -> None:
        """Socket options have nginx's names and units."""
        values = {
            "backlog=7": SocketOptions(backlog=7),
            "rcvbuf=64k sndbuf=1m": SocketOptions(receiveBuffer=65536, sendBuffer=1048576),
            "so_keepalive=on": SocketOptions(keepalive=True),
            "so_keepalive=off": SocketOptions(keepalive=False),
            "so_keepalive=30m::10": SocketOptions(keepalive=True, idle=1800, probes=10),
            "so_keepalive=:5s:": SocketOptions(keepalive=True, interval=5),
            "so_keepalive=::9": SocketOptions(keepalive=True, probes=9),
            "multipath": SocketOptions(multipath=True),
        }
        for text, expected in values.items():
            self.assertEqual(self.parse(f"127.0.0.1:143 {text}")[0].socket, expected)
        self.assertEqual(self.parse("[::]:143 ipv6only=off")[0].socket, SocketOptions(ipv6only=False))

    def test_shortKeepalive(self) -> None:
        """Colons at the end of C{so_keepalive} may be left out, and 0 means the system's default."""
        for value, expected in (
            ("30m", (1800, None, None)),
            ("30m:", (1800, None, None)),
            ("30m:10", (1800, 10, None)),
            (":10", (None, 10, None)),
            (":1m:", (None, 60, None)),
            ("1:0", (1, None, None)),
            ("0::5", (None, None, 5)),
            ("32767:32767:127", (32767, 32767, 127)),
        ):
            found = self.parse(f"143 so_keepalive={value}")[0].socket
            self.assertTrue(found.keepalive)
            self.assertEqual((found.idle, found.interval, found.probes), expected)

    def test_exactCase(self) -> None:
        """Parameters are case-sensitive, as in nginx. Units of sizes are not."""
        for parameter in ("SSL", "Bind", "PROXY_PROTOCOL", "Multipath", "Backlog=5", "RCVBUF=4k", "IPv6only=on"):
            self.assertIn(f'invalid parameter "{parameter}"', self.refusal(f"[::1]:993 {parameter}"))
        self.assertEqual(
            self.parse("993 rcvbuf=4K sndbuf=1M")[0].socket, self.parse("993 rcvbuf=4k sndbuf=1m")[0].socket
        )

    def test_invalidSocketOptions(self) -> None:
        """Invalid values are refused, and the message names the parameter."""
        for parameter in (
            "backlog=0",
            "backlog=-1",
            "backlog=x",
            "rcvbuf=1g",
            "sndbuf=",
            "ipv6only=yes",
            "ipv6only=ON",
            "ipv6only=Off",
            "so_keepalive=",
            "so_keepalive=yes",
            "so_keepalive=::",
            "so_keepalive=:",
            "so_keepalive=:::",
            "so_keepalive=1:2:3:4",
            "so_keepalive=1:2:3:",
            "so_keepalive=10h::",
            "so_keepalive=0",
            "so_keepalive=0:0:0",
            "so_keepalive=::128",
            "so_keepalive=500ms::",
            "so_keepalive=::5s",
            "so_keepalive=-1",
            "so_keepalive=:+5",
            "so_keepalive=On",
            "so_keepalive=off:",
        ):
            self.assertIn(parameter + ": ", self.refusal(f"[::]:143 {parameter}"))

    def test_tooMuch(self) -> None:
        """Numbers that the system cannot represent are refused."""
        for parameter in ("backlog=2147483648", "rcvbuf=2048m", "sndbuf=999999999999m"):
            self.assertIn(parameter + ": must be at most ", self.refusal(f"[::]:143 {parameter}"))
        self.assertEqual(self.parse("143 backlog=2147483647 rcvbuf=2047m")[0].socket.backlog, 2**31 - 1)

    def test_ipv6only(self) -> None:
        """C{ipv6only} is allowed without effect at other addresses than IPv6, as in nginx."""
        for address in ("143", "127.0.0.1:143", "localhost:143", "unix:/run/imap"):
            for word in ("on", "off"):
                self.assertTrue(self.parse(f"{address} ipv6only={word}"))

    def test_spelling(self) -> None:
        """Different spellings of an IPv6 address are one address, in the system's spelling. The text is kept."""
        for spelt, host in (("0:0::1", "::1"), ("2001:DB8:0::A", "2001:db8::a"), ("0::0", "::")):
            found = self.parse(f"[{spelt}]:143")[0]
            self.assertEqual((found.host, found.text), (host, f"[{spelt}]:143"))

    def test_systemd(self) -> None:
        """C{systemd:NAME} is a name of sockets from systemd. Parameters of connections apply to them."""
        (address,) = self.parse("systemd:imap-2 ssl proxy_protocol backlog=7")
        self.assertEqual((str(address), address.host, address.port), ("systemd:imap-2", "systemd:imap-2", 0))
        self.assertTrue(address.isPassed and address.ssl and address.proxyProtocol)
        self.assertIsNone(address.wildcard)
        self.assertFalse(self.parse("unix:/run/imap")[0].isPassed)

    def test_invalidSystemd(self) -> None:
        """A name that systemd does not allow is refused."""
        for value in ("systemd:", "systemd:a:b", "systemd:\u00e4", f"systemd:{'x' * 256}"):
            self.assertIn("must be systemd:NAME", self.refusal(value))

    def test_systemdBinds(self) -> None:
        """Socket options belong into the socket unit, and the message names the setting there."""
        for parameter, option in (
            ("rcvbuf=64k", "ReceiveBuffer="),
            ("sndbuf=64k", "SendBuffer="),
            ("ipv6only=off", "BindIPv6Only="),
            ("so_keepalive=on", "KeepAlive="),
            ("multipath", "SocketProtocol=mptcp"),
        ):
            refusal = self.refusal(f"systemd:imap {parameter}")
            self.assertIn(f"{parameter}: must be set in the socket unit, as {option}", refusal)

    def refusal(self, value: str) -> str:
        """Return the message that refuses C{value}."""
        return str(self.assertRaises(ValueError, self.parse, value))
