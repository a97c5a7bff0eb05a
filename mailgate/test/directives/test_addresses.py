"""
Tests for L{mailgate.directives.addresses}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, hostPort, isHostName


class HostPortTests(SynchronousTestCase):
    """Tests for L{hostPort}."""

    def test_forms(self):
        """Names, IPv4 addresses, IPv6 addresses in brackets and unix sockets are valid; brackets are removed."""
        for value, expected in (
            ("mx.example.com:25", ("mx.example.com", 25)),
            ("10.0.0.1:65535", ("10.0.0.1", 65535)),
            ("[::1]:143", ("::1", 143)),
            ("[::ffff:10.0.0.1]:1", ("::ffff:10.0.0.1", 1)),
            ("unix:/run/imap.sock", ("unix:/run/imap.sock", 0)),
            ("a-b.1.example.:1", ("a-b.1.example.", 1)),
        ):
            self.assertEqual(hostPort(value), expected)

    def test_refused(self):
        """
        A missing port, an IPv6 address without brackets, a relative socket, a URL, blanks and the empty text are
        refused.
        """
        for value in ("", "host", ":25", "::1:25", "[::1]", "[host]:1", "unix:run", "http://h:1", "a b:1", "h:", "h:x"):
            error = self.assertRaises(ValueError, hostPort, value)
            self.assertIn("host:port", str(error))

    def test_socketPath(self):
        """The path of a unix socket is limited to the bytes that the kernel accepts."""
        self.assertEqual(hostPort("unix:/" + "x" * 106), ("unix:/" + "x" * 106, 0))
        for place in ("/" + "x" * 107, "/" + "é" * 54):
            self.assertIn("at most 107 bytes", str(self.assertRaises(ValueError, hostPort, f"unix:{place}")))

    def test_ports(self):
        """Ports are 1 to 65535."""
        for value in ("h:0", "h:65536", "[::1]:99999"):
            self.assertIn("invalid port", str(self.assertRaises(ValueError, hostPort, value)))


class HostNameTests(SynchronousTestCase):
    """L{isHostName}."""

    def test_names(self):
        """Names of RFC 1123, also with a dot at the end, and names with underscores."""
        for name in (
            "a",
            "localhost",
            "mail.example.com",
            "mail.example.com.",
            "1.2.a",
            "x--y",
            "a" * 63,
            "xn--tst-qla.de",
            "mail_auth",
            "a_b.c_d.example",
            "_a",
            "a_",
            "1_a",
            "_" * 62 + "a",
        ):
            self.assertTrue(isHostName(name), name)
            self.assertEqual(hostPort(f"{name}:143"), (name, 143))

    def test_others(self):
        """
        Addresses, names that the system reads as addresses, empty and too long labels, and other texts are refused.
        """
        others = (
            "",
            ".",
            "a..b",
            ".a",
            "-a",
            "a-",
            "a%b",
            "a_/b",
            "a_\0b",
            "a_\tb",
            "_-",
            "1_2",
            "_",
            "127.1",
            "_" * 63 + "a",
            "a_..b",
            "a b",
            "1.2.3.4",
            "1",
            "a.1",
            "a" * 64,
            "é",
            "a\n",
        )
        for name in (*others, "a." * 127 + "ab"):
            self.assertFalse(isHostName(name), name)
            if name:
                self.assertRaises(ValueError if name != "1.2.3.4" else AssertionError, self.parse, name)

    def parse(self, name):
        """Parse C{name} as a host, with a port."""
        hostPort(f"{name}:143")
        raise AssertionError("taken")


class ListenAddressTests(SynchronousTestCase):
    """Tests for L{ListenAddress}."""

    def test_str(self):
        """An address is shown as an operator writes it."""
        for address, shown in (
            (ListenAddress("0.0.0.0", 143), "0.0.0.0:143"),
            (ListenAddress("::", 993, ssl=True), "[::]:993"),
            (ListenAddress("unix:/run/x", 0), "unix:/run/x"),
        ):
            self.assertEqual(str(address), shown)
