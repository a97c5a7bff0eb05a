"""
Tests for L{mailgate.watch.settings}.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from mailgate.config import parse
from mailgate.system.pidfile import PIDSettings
from mailgate.test.support.admincase import writeTokens
from mailgate.test.support.certificates import Authority
from mailgate.test.support.configcase import IMAP, MAIL, ConfigCase
from mailgate.watch import settings as watchSettings
from mailgate.watch.settings import AdminAddress, AdminSettings


class AdminCase(ConfigCase):
    """Configurations with an admin server."""

    def setUp(self) -> None:
        self.tokens = writeTokens(self.mktemp())
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        self.folder = folder
        self.authority = Authority(folder, "ca")
        self.certificate = self.authority.issue("admin")[1]
        os.chmod(self.certificate, 0o600)

    def text(self, *lines: str) -> str:
        return "\n".join(["[mailgate]", *lines, MAIL, IMAP])

    def settings(self, *lines: str) -> AdminSettings:
        return parse(self.text(*lines))[AdminSettings]

    def warnings(self, *lines: str) -> list[str]:
        found = parse(self.text(*lines)).warnings
        return [str(each).removeprefix("gateway.ini:") for each in found if each.section == "mailgate"]

    @property
    def tls(self) -> list[str]:
        return [f"admin_ssl_certificate = {self.certificate}", f"admin_ssl_certificate_key = {self.certificate}"]


class AddressTests(AdminCase):
    """C{admin} and C{metrics}."""

    def test_default(self) -> None:
        """Without the directive the socket is beside the pid file; without that there is none."""
        pid = PIDSettings("/run/x.pid")
        for settings in (AdminSettings(), self.settings("admin = on")):
            self.assertEqual(settings.adminAt(pid), AdminAddress("/run/x.pid.admin"))
            self.assertIs(settings.adminAt(PIDSettings()), None)
            self.assertTrue(settings.isWatched(pid))
            self.assertFalse(settings.isWatched(PIDSettings()))
        off = self.settings("admin = off")
        self.assertIs(off.adminAt(pid), None)
        self.assertFalse(off.isWatched(pid))

    def test_forms(self) -> None:
        """A unix socket, or an IP address with a port, and ssl."""
        base = os.path.abspath("")
        given = [f"admin_token_file = {self.tokens}", *self.tls]
        for value, expected in (
            ("unix:/run/a b.sock", AdminAddress("/run/a b.sock")),
            ("unix:a.sock", AdminAddress(os.path.join(base, "a.sock"))),
            ("127.0.0.1:9143", AdminAddress(None, "127.0.0.1", 9143)),
            ("[::1]:9143 ssl", AdminAddress(None, "::1", 9143, True)),
            ("0.0.0.0:9143  ssl", AdminAddress(None, "0.0.0.0", 9143, True)),
        ):
            found = parse(self.text(f"admin = {value}", *given), os.path.join(base, "gateway.ini"))[AdminSettings].admin
            self.assertEqual(found, expected)
        self.assertEqual(str(AdminAddress(None, "::1", 1, True)), "[::1]:1 ssl")
        self.assertEqual(str(AdminAddress("/a")), "unix:/a")

    def test_malformed(self) -> None:
        """Names, ports out of range and other words are refused."""
        for value in (
            "localhost:9143",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "::1:9143",
            "*:9143",
            "[127.0.0.1",
            "1.2.3:4",
        ):
            self.assertIn(
                "must be unix:PATH, ADDRESS:PORT, ADDRESS:PORT ssl, on or off",
                self.faults(self.text(f"admin = {value}"))[0],
            )
            self.assertIn(
                "must be ADDRESS:PORT, such as 127.0.0.1:9144, or off", self.faults(self.text(f"metrics = {value}"))[0]
            )
        self.assertIn('"tls" is unknown; only ssl', self.faults(self.text("admin = 127.0.0.1:1 tls"))[0])
        self.assertIn("ssl is for TCP only", self.faults(self.text("admin = unix:/a ssl"))[0])
        self.assertIn("a path is missing", self.faults(self.text("admin = unix:"))[0])
        self.assertIn("must be ADDRESS:PORT", self.faults(self.text("metrics = unix:/a"))[0])

    def test_hosts(self) -> None:
        """admin_host has names, each with a port or without."""
        found = self.settings("admin_host = G1.example.com g2:9143 [::1]:80 192.0.2.1").hosts
        self.assertEqual(found, ("g1.example.com", "g2:9143", "[::1]:80", "192.0.2.1"))
        for value in ("http://g1", "g1:x", "g1:0", "g1:70000", "a/b", "*"):
            self.assertIn("must be a host name, or HOST:PORT", self.faults(self.text(f"admin_host = {value}"))[0])

    def test_memory(self) -> None:
        """explain_memory is a number with a bound; 0 switches it off."""
        self.assertEqual(AdminSettings().explainMemory, 2000)
        self.assertEqual(self.settings("explain_memory = 0").explainMemory, 0)
        self.assertIn("must be at most 10000", self.faults(self.text("explain_memory = 10001"))[0])

    def test_paths(self) -> None:
        """The socket must not replace the configuration, and its path must not be too long."""
        self.assertIn("is the configuration file itself", self.faults(self.text("admin = unix:gateway.ini"))[0])
        self.assertIn("the path of the admin socket is longer", self.faults(self.text(f"admin = unix:/{200 * 'a'}"))[0])
        # The checks of the start name the path beside a pid file, with those of the other sockets there.
        self.assertIsNone(self.settings(f"pid = /{105 * 'a'}").metrics)


class SafetyTests(AdminCase):
    """mailgate check refuses what is not safe."""

    def test_tcp(self) -> None:
        """
        TCP needs a token file. Off loopback it needs TLS, too. On loopback a token is enough.
        """
        token = f"admin_token_file = {self.tokens}"
        noToken = "needs admin_token_file: TCP gives access to every client otherwise"
        noTLS = 'needs "ssl" and admin_ssl_certificate: tokens would be sent in clear text'
        for address in ("127.0.0.1:9143", "[::1]:9143", "127.9.9.9:9143"):
            self.settings(f"admin = {address}", token)
            self.assertFaults(self.text(f"admin = {address}"), f"2: [mailgate] admin = {address}: {noToken}")
        for address in (
            "192.0.2.1:9143",
            "10.0.0.1:9143",
            "0.0.0.0:9143",
            "[::]:9143",
            "[fe80::1]:9143",
            "[::ffff:192.0.2.1]:9143",
        ):
            shown = self.faults(self.text(f"admin = {address}", token))
            self.assertEqual(len(shown), 1)
            self.assertIn(noTLS, shown[0])
            both = self.faults(self.text(f"admin = {address}"))
            self.assertEqual([noTLS in both[0], noToken in both[1], len(both)], [True, True, 2])
            self.settings(f"admin = {address} ssl", token, *self.tls)
            self.assertIn(noToken, self.faults(self.text(f"admin = {address} ssl", *self.tls))[0])

    def test_clientCertificates(self) -> None:
        """Client certificates get their level in the token file."""
        writeTokens(self.tokens, ["ops admin certificate"])
        given = [f"admin_ssl_client_certificate = {self.authority.certificate}", *self.tls]
        settings = self.settings("admin = 192.0.2.1:9143 ssl", f"admin_token_file = {self.tokens}", *given)
        self.assertEqual(settings.tls.verifyClient, "optional")
        self.assertEqual(settings.files, (self.certificate, self.certificate, self.authority.certificate))
        self.assertIn("admin_token_file", self.faults(self.text("admin = 192.0.2.1:9143 ssl", *given))[0])

    def test_tokenFile(self) -> None:
        """The file of tokens is read, and its mode is checked."""
        given = ["admin = 127.0.0.1:9143", f"admin_token_file = {self.tokens}"]
        os.chmod(self.tokens, 0o644)
        self.assertIn("every user on this host can open it", self.faults(self.text(*given))[0])
        writeTokens(self.tokens, ["a admin short"])
        self.assertIn("line 1: the token is shorter than 20", self.faults(self.text(*given))[0])
        os.unlink(self.tokens)
        self.assertIn("cannot be read: No such file", self.faults(self.text(*given))[0])

    def test_certificates(self) -> None:
        """TLS needs a certificate and a key that fit."""
        given = ["admin = 192.0.2.1:9143 ssl", f"admin_token_file = {self.tokens}"]
        self.assertIn("[mailgate] admin_ssl_certificate: is missing", self.faults(self.text(*given))[0])
        self.assertIn("admin_ssl_certificate_key: is missing", self.faults(self.text(*given, self.tls[0]))[0])
        other = self.authority.issue("other")[1]
        wrong = self.faults(self.text(*given, self.tls[0], f"admin_ssl_certificate_key = {other}"))
        self.assertIn("admin_ssl_certificate_key", wrong[0])
        self.assertIn("does not match certificate", wrong[0])
        missing = self.faults(self.text(*given, *self.tls, "admin_ssl_client_certificate = /nowhere"))
        self.assertIn("admin_ssl_client_certificate = /nowhere: cannot be read", missing[0])

    def test_metrics(self) -> None:
        """Metrics on an address that others reach cause a warning; they have no token."""
        for address in ("127.0.0.1:9144", "10.0.0.1:9144", "[fd00::1]:9144", "192.168.1.1:9144"):
            self.assertEqual(self.warnings(f"metrics = {address}"), [])
        for address in ("0.0.0.0:9144", "[::]:9144", "8.8.8.8:9144", "[2001:4860::1]:9144"):
            (warning,) = self.warnings(f"metrics = {address}")
            self.assertIn("every client that reaches this address can read the metrics", warning)
        given = ["admin = 127.0.0.1:9143", f"admin_token_file = {self.tokens}", "metrics = 127.0.0.1:9143"]
        self.assertIn("must not be the address of admin", self.faults(self.text(*given))[0])

    def test_metricsMissing(self) -> None:
        """So does their port, if the package that writes them is not installed. The admin server has more than them."""
        missing = lambda name: None if name == "prometheus_client" else find_spec(name)  # noqa: E731
        self.patch(watchSettings, "find_spec", missing)
        (warning,) = self.warnings("metrics = 127.0.0.1:9144")
        self.assertIn("[mailgate] metrics = 127.0.0.1:9144: needs the Python package prometheus_client", warning)
        self.assertIn('install "mailgate[metrics]"', warning)
        self.assertEqual(self.warnings("pid = /run/x.pid"), [])

    def test_warnings(self) -> None:
        """So do a key that others can read, and options without effect."""
        os.chmod(self.certificate, 0o644)
        given = ["admin = 192.0.2.1:9143 ssl", f"admin_token_file = {self.tokens}", *self.tls]
        found = self.warnings(*given)
        self.assertEqual(len([each for each in found if "admin_ssl_certificate_key" in each]), len(found))
        without = self.warnings(f"admin_token_file = {self.tokens}", *self.tls)
        self.assertEqual(len(without), 3)
        self.assertIn("has no effect without an admin of the form ADDRESS:PORT", without[0])
        self.assertIn('has no effect without an admin with "ssl"', without[1])
