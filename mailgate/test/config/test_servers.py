"""
Tests of servers' sections: protocols, addresses, authenticators.
"""

from __future__ import annotations

import os

from mailgate.auth.http.settings import HTTPSettings
from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.backend.settings import ProxySettings
from mailgate.config import authenticatorKind, parse
from mailgate.directives import ServerSettings
from mailgate.login import Backend
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.test.support.configcase import AUTH, IMAP, KNOWN, MAIL, ConfigCase
from mailgate.test.support.nowhere import NOWHERE


class ProtocolTests(ConfigCase):
    """The protocol of a server."""

    def test_guessed(self):
        """A well-known port implies the protocol."""
        for port, protocol in (
            (143, "imap"),
            (993, "imap"),
            (110, "pop3"),
            (995, "pop3"),
            (25, "smtp"),
            (465, "smtp"),
            (587, "smtp"),
        ):
            self.assertEqual(self.server(f"{MAIL}[server x]\nlisten = 127.0.0.1:{port}").protocol, protocol)

    def test_firstWellKnown(self):
        """Of several ports the first well-known one counts, as in nginx."""
        text = MAIL + "[server x]\nlisten =\n  127.0.0.1:1143\n  127.0.0.1:110\n  127.0.0.1:143\n"
        self.assertEqual(self.server(text).protocol, "pop3")

    def test_given(self):
        """An explicit protocol counts, whatever the port."""
        self.assertEqual(self.server(MAIL + IMAP + "protocol = smtp").protocol, "smtp")

    def test_untold(self):
        """Without either, the protocol is reported as missing."""
        self.assertFaults(
            MAIL + "[server x]\nlisten = 127.0.0.1:1143",
            f"3: [server x] protocol: is missing, as no port of listen implies it; set one of {KNOWN}",
        )

    def test_caseMatters(self):
        """As in nginx, the name of a protocol is in lower case."""
        self.assertIn(f"must be one of {KNOWN}", self.faults(MAIL + IMAP + "protocol = IMAP")[0])


class ListenTests(ConfigCase):
    """The addresses of listeners."""

    def test_missing(self):
        """A server without an address is an error."""
        self.assertFaults(
            MAIL + "[server x]\nprotocol = imap",
            "3: [server x] listen: is missing; set a port or an address, such as 143 or 127.0.0.1:143",
        )

    def test_ssl(self):
        """C{ssl} after an address concerns only this address."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        text = MAIL + pair + "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993 ssl\n"
        self.assertEqual([address.ssl for address in self.server(text).listen], [False, True])

    def test_sslOn(self):
        """C{ssl on}, as in old guides, makes all addresses of a server use TLS, and in [mail] those of all servers."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        both = "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993\n"
        self.assertEqual([address.ssl for address in self.server(MAIL + pair + both + "ssl = on").listen], [True, True])
        self.assertTrue(self.server(MAIL + pair + "ssl = on\n" + IMAP).speaksTLS)
        self.assertFalse(self.server(MAIL + pair + "ssl = on\n" + IMAP + "ssl = off\n").speaksTLS)

    def test_sslOnNeedsACertificate(self):
        """It needs a certificate like any other C{ssl}."""
        self.assertFaults(
            MAIL + IMAP + "ssl = on",
            '3: [server imap] ssl_certificate: is missing; "listen … ssl" requires a certificate',
        )

    def test_sslAndSTARTTLS(self):
        """C{ssl} and C{starttls} contradict each other in one section, but not in two, as in nginx before 1.25."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        for word in ("on", "only"):
            self.assertFaults(
                MAIL + pair + IMAP + f"ssl = on\nstarttls = {word}\n",
                "8: [server imap] starttls: conflicts with ssl = on, which starts TLS at the first byte",
            )
        self.assertTrue(self.server(MAIL + pair + "starttls = on\n" + IMAP + "ssl = on\n").speaksTLS)
        self.assertTrue(self.server(MAIL + pair + IMAP + "ssl = on\nstarttls = off\n").speaksTLS)

    def test_withoutTLS(self):
        """mailgate warns of a server without TLS on a port where clients expect TLS from the first byte."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  143\n  127.0.0.1:993\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:993: clients expect TLS from the first byte on port"
                ' 993; add "ssl" after it'
            ],
        )

    def test_otherProtocol(self):
        """mailgate warns of a well-known port of another protocol than the server's."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:110\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:110: port 110 is a well-known port of pop3, but this"
                " server speaks imap"
            ],
        )

    def test_portsBehindABalancer(self):
        """A load balancer may end TLS and map ports: no warning then, nor for other ports."""
        balanced = "listen =\n  993 proxy_protocol\n  995 proxy_protocol\n  9993\n  unix:/s\n"
        server = "[server a]\nprotocol = imap\nset_real_ip_from = 10.0.0.1\n"
        self.assertEqual(parse(MAIL + server + balanced).warnings, ())

    def test_duplicate(self):
        """The same address and port can be used once, in one server or in two, with or without TLS."""
        self.assertFaults(
            MAIL + IMAP + "[server other]\nprotocol = pop3\nlisten =\n  127.0.0.1:110\n  127.0.0.1:143\n",
            '7: [server other] listen: duplicate "127.0.0.1:143" address and port pair; [server imap] has it already',
        )
        self.assertFaults(
            MAIL + "[server x]\nprotocol = imap\nlisten =\n  143\n  *:143\n",
            '5: [server x] listen: duplicate "0.0.0.0:143" address and port pair; [server x] has it already',
        )

    def test_sessionCaches(self):
        """A shared session cache of one name has one size in all servers; another name is another cache."""
        other = "[server other]\nprotocol = pop3\nlisten = 127.0.0.1:110\nssl_session_cache = shared:{}\n"
        first = MAIL + IMAP + "ssl_session_cache = builtin shared:TLS:1m\n"
        self.assertFaults(
            first + other.format("TLS:2m"),
            '9: [server other] ssl_session_cache: the size 2097152 of shared memory zone "TLS" conflicts with already'
            " declared size 1048576",
        )
        for value in ("TLS:1m", "TLS:1024k", "other:2m"):
            self.assertEqual(len(parse(first + other.format(value)).servers), 2)

    def test_sessionCacheOfNobody(self):
        """The size in [mail] counts even if each server has its own, as in nginx."""
        mail = MAIL + "ssl_session_cache = shared:TLS:1m\n" + IMAP + "ssl_session_cache = "
        self.assertFaults(
            mail + "shared:TLS:2m\n",
            '6: [server imap] ssl_session_cache: the size 2097152 of shared memory zone "TLS" conflicts with already'
            " declared size 1048576",
        )
        for value in ("shared:TLS:1024k", "shared:other:2m", "none"):
            self.assertEqual(len(parse(f"{mail}{value}\n").servers), 1)

    def test_inlineKeyHidden(self):
        """No message contains a key of the file."""
        for value in ("data:SECRET", "engine:SECRET", "store:SECRET"):
            text = MAIL + IMAP + f"ssl = on\nssl_certificate = data:x\nssl_certificate_key = {value}\n"
            self.assertNotIn("SECRET", "".join(self.faults(text)))

    def test_notDuplicate(self):
        """The same port of two addresses, or of the two address families, is no duplicate."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  127.0.0.1:143\n  127.0.0.2:143\n  [::1]:143\n"
        self.assertEqual(len(self.server(text).listen), 3)

    def test_wildcard(self):
        """
        A wildcard address and an address that it includes are no duplicate; both may have the same socket options.
        """
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  143 backlog=9\n  127.0.0.1:143\n  [::1]:143 backlog=3\n"
        self.assertEqual(len(self.server(text).listen), 3)
        self.assertEqual(len(self.server(text.replace("127.0.0.1:143", "127.0.0.1:143 backlog=9")).listen), 3)

    def test_sharedSocket(self):
        """An address that shares the socket of a wildcard address cannot have other socket options."""
        self.assertFaults(
            MAIL + IMAP + "[server x]\nprotocol = pop3\nlisten = 143 backlog=9\n[server y]\nprotocol = pop3\n"
            "listen = 127.0.0.2:143 backlog=8\n",
            '10: [server y] listen: "127.0.0.2:143" shares the socket of "0.0.0.0:143";'
            " give it the same socket options or none",
        )

    def test_unix(self):
        """A unix socket is an address, and twice the same one is a duplicate."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten = unix:/run/imap.sock\n"
        self.assertEqual(self.server(text).listen[0].host, "unix:/run/imap.sock")
        self.assertIn("duplicate", self.faults(text + text.replace(MAIL, "").replace("server x", "server y"))[0])


class AuthenticatorTests(ConfigCase):
    """Authenticators."""

    def kind(self, text: str) -> str:
        kind = authenticatorKind(self.server(text))
        assert kind is not None
        return str(kind.name)

    def accounts(self) -> str:
        path: str = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        return path

    def test_kinds(self):
        """Each directive selects its own kind."""
        self.assertEqual(self.kind(IMAP + AUTH), "http")
        self.assertEqual(self.kind(IMAP + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\n"), "passthrough")

    def test_default(self):
        """With another authenticator, proxy_pass is the backend of accounts without one."""
        text = IMAP + "proxy_pass = 10.0.0.1:143\n"
        self.assertEqual(self.kind(text + AUTH), "http")
        self.assertEqual(self.kind(text + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.server(text + AUTH)[ProxySettings].backend, Backend("10.0.0.1", 143))

    def test_none(self):
        """A server without an authenticator is refused."""
        self.assertFaults(IMAP, "1: [server imap] auth_http: is missing; set auth_http, auth_file or proxy_pass")
        self.assertIsNone(authenticatorKind(ServerSettings("x", "imap", ())))

    def test_exclusive(self):
        """A service and a file together are refused."""
        expected = "[server imap] auth_http: conflicts with auth_file; remove one of them"
        self.assertFaults(IMAP + AUTH + f"auth_file = {self.accounts()}\n", f"3: {expected}")
        self.assertFaults(
            MAIL + f"auth_file = {self.accounts()}\n" + IMAP, f"2: {expected}".replace("server imap", "mail")
        )

    def test_own(self):
        """The authenticator of a server replaces that of [mail], in either direction."""
        server = self.server(MAIL + IMAP + f"auth_file = {self.accounts()}\n")
        self.assertEqual(server[HTTPSettings], HTTPSettings())
        self.assertNotIn("auth_http", server.given)
        server = self.server(f"[mail]\nauth_file = {self.accounts()}\n" + IMAP + AUTH)
        self.assertEqual(server[FileSettings], FileSettings())

    def test_unjudged(self):
        """A login method that the authenticator does not support is refused."""
        backend = "proxy_pass = 10.0.0.1:143\n"
        self.assertFaults(
            IMAP + backend + "imap_auth = plain cram-md5 external\n",
            "4: [server imap] imap_auth: offers cram-md5, external, which proxy_pass does not support",
        )
        self.assertFaults(
            "[server p]\nlisten = 127.0.0.1:110\npop3_auth = apop\n" + backend,
            "3: [server p] pop3_auth: offers apop, which proxy_pass does not support",
        )
        self.assertFaults(
            f"[server s]\nlisten = 127.0.0.1:25\nsmtp_auth = none external\nauth_file = {self.accounts()}\n",
            "3: [server s] smtp_auth: offers external, none, which auth_file does not support",
        )

    def test_judged(self):
        """
        A service supports all methods, a file those that need only a password, a backend those that can be replayed.
        """
        every = "plain login cram-md5 external"
        self.assertEqual(self.kind(f"{IMAP}{AUTH}imap_auth = {every}\n"), "http")
        self.assertEqual(self.kind(f"{IMAP}auth_file = {self.accounts()}\nimap_auth = plain login cram-md5\n"), "file")
        text = "[server s]\nlisten = 127.0.0.1:25\nproxy_pass = 10.0.0.1:25\nsmtp_auth = plain login none\n"
        self.assertEqual(self.kind(text), "passthrough")

    def test_othersWords(self):
        """Directives of another protocol do not concern this server."""
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\npop3_auth = apop\n"), "passthrough")

    def test_fileChecked(self):
        """The account file is read, and its mistakes are reported with the others."""
        path = self.accounts()
        with open(path, "a", encoding="ascii") as opened:
            opened.write("ann:{ROT13}frnfnzr\n")
        faults = self.faults(IMAP + f"auth_file = {path}\n")
        self.assertIn(f"[server imap] auth_file = {path}: line 2 (ann): ", faults[0])
        self.assertNotIn("frnfnzr", faults[0])

    def test_fileMissing(self):
        """A missing file is reported."""
        self.assertFaults(
            IMAP + f"auth_file = {NOWHERE}/accounts\n",
            f"3: [server imap] auth_file = {NOWHERE}/accounts: cannot be read: No such file or directory",
        )
