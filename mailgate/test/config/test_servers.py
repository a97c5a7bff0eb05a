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
    """What a server speaks."""

    def test_guessed(self):
        """A well-known port tells the protocol."""
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
        """Of several ports the first that is well known tells it, as in nginx."""
        text = MAIL + "[server x]\nlisten =\n  127.0.0.1:1143\n  127.0.0.1:110\n  127.0.0.1:143\n"
        self.assertEqual(self.server(text).protocol, "pop3")

    def test_given(self):
        """What is written counts, whatever the port."""
        self.assertEqual(self.server(MAIL + IMAP + "protocol = smtp").protocol, "smtp")

    def test_untold(self):
        """Where nothing tells it, it is missed."""
        self.assertFaults(
            MAIL + "[server x]\nlisten = 127.0.0.1:1143",
            f"3: [server x] protocol: is missing, and no port tells it: {KNOWN}",
        )

    def test_caseMatters(self):
        """nginx takes protocols in small letters alone, and so do we."""
        self.assertIn("is no known protocol", self.faults(MAIL + IMAP + "protocol = IMAP")[0])


class ListenTests(ConfigCase):
    """Where servers listen."""

    def test_missing(self):
        """A server without an address is an error."""
        self.assertFaults(MAIL + "[server x]\nprotocol = imap", "3: [server x] listen: is missing")

    def test_ssl(self):
        """C{ssl} behind an address is that address's own."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        text = MAIL + pair + "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993 ssl\n"
        self.assertEqual([address.ssl for address in self.server(text).listen], [False, True])

    def test_sslOn(self):
        """The C{ssl on} of old guides makes every address speak TLS, in [mail] those of every server."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        both = "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993\n"
        self.assertEqual([address.ssl for address in self.server(MAIL + pair + both + "ssl = on").listen], [True, True])
        self.assertTrue(self.server(MAIL + pair + "ssl = on\n" + IMAP).speaksTLS)
        self.assertFalse(self.server(MAIL + pair + "ssl = on\n" + IMAP + "ssl = off\n").speaksTLS)

    def test_sslOnNeedsACertificate(self):
        """It is held to what every C{ssl} is."""
        self.assertFaults(
            MAIL + IMAP + "ssl = on",
            '3: [server imap] ssl_certificate: is missing; "listen … ssl" requires a certificate',
        )

    def test_sslAndSTARTTLS(self):
        """C{ssl} and C{starttls} contradict each other in one section, and not in two, as in nginx before 1.25."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        for word in ("on", "only"):
            self.assertFaults(
                MAIL + pair + IMAP + f"ssl = on\nstarttls = {word}\n",
                "8: [server imap] starttls: conflicts with ssl = on, by which TLS is spoken from the first byte",
            )
        self.assertTrue(self.server(MAIL + pair + "starttls = on\n" + IMAP + "ssl = on\n").speaksTLS)
        self.assertTrue(self.server(MAIL + pair + IMAP + "ssl = on\nstarttls = off\n").speaksTLS)

    def test_withoutTLS(self):
        """A port on which clients speak TLS from the first byte, and that does not, is warned of."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  143\n  127.0.0.1:993\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:993: clients speak TLS from the first byte on port"
                ' 993, which takes "ssl" behind it'
            ],
        )

    def test_otherProtocol(self):
        """So is a port that belongs to another protocol than the server's."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:110\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:110: port 110 is one of pop3, and clients find imap"
                " there"
            ],
        )

    def test_portsBehindABalancer(self):
        """A load balancer may end TLS, and may have ports of its own: nothing is said then, nor of any other port."""
        balanced = "listen =\n  993 proxy_protocol\n  995 proxy_protocol\n  9993\n  unix:/s\n"
        server = "[server a]\nprotocol = imap\nset_real_ip_from = 10.0.0.1\n"
        self.assertEqual(parse(MAIL + server + balanced).warnings, ())

    def test_duplicate(self):
        """An address and port is listened on once, in one server or in two, with or without TLS."""
        self.assertFaults(
            MAIL + IMAP + "[server other]\nprotocol = pop3\nlisten =\n  127.0.0.1:110\n  127.0.0.1:143\n",
            '7: [server other] listen: duplicate "127.0.0.1:143" address and port pair, which [server imap] has'
            " already",
        )
        self.assertFaults(
            MAIL + "[server x]\nprotocol = imap\nlisten =\n  143\n  *:143\n",
            '5: [server x] listen: duplicate "0.0.0.0:143" address and port pair, which [server x] has already',
        )

    def test_sessionCaches(self):
        """A shared session cache has one size under one name, in all servers together; another name is another."""
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
        """The size in [mail] counts although each server has another of its own, as in nginx."""
        mail = MAIL + "ssl_session_cache = shared:TLS:1m\n" + IMAP + "ssl_session_cache = "
        self.assertFaults(
            mail + "shared:TLS:2m\n",
            '6: [server imap] ssl_session_cache: the size 2097152 of shared memory zone "TLS" conflicts with already'
            " declared size 1048576",
        )
        for value in ("shared:TLS:1024k", "shared:other:2m", "none"):
            self.assertEqual(len(parse(f"{mail}{value}\n").servers), 1)

    def test_inlineKeyHidden(self):
        """Whatever is wrong with a key in the file, no message holds it."""
        for value in ("data:SECRET", "engine:SECRET", "store:SECRET"):
            text = MAIL + IMAP + f"ssl = on\nssl_certificate = data:x\nssl_certificate_key = {value}\n"
            self.assertNotIn("SECRET", "".join(self.faults(text)))

    def test_notDuplicate(self):
        """The same port of two addresses, and of the two families, is not the same."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  127.0.0.1:143\n  127.0.0.2:143\n  [::1]:143\n"
        self.assertEqual(len(self.server(text).listen), 3)

    def test_wildcard(self):
        """A wildcard beside addresses that it takes in is none either, and all of them may have the same options."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  143 backlog=9\n  127.0.0.1:143\n  [::1]:143 backlog=3\n"
        self.assertEqual(len(self.server(text).listen), 3)
        self.assertEqual(len(self.server(text.replace("127.0.0.1:143", "127.0.0.1:143 backlog=9")).listen), 3)

    def test_sharedSocket(self):
        """An address that shares the wildcard's socket cannot have one that is different."""
        self.assertFaults(
            MAIL + IMAP + "[server x]\nprotocol = pop3\nlisten = 143 backlog=9\n[server y]\nprotocol = pop3\n"
            "listen = 127.0.0.2:143 backlog=8\n",
            '10: [server y] listen: "127.0.0.2:143" shares the socket of "0.0.0.0:143", and cannot have other options',
        )

    def test_unix(self):
        """A unix socket is an address, and given twice it is a duplicate too."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten = unix:/run/imap.sock\n"
        self.assertEqual(self.server(text).listen[0].host, "unix:/run/imap.sock")
        self.assertIn("duplicate", self.faults(text + text.replace(MAIL, "").replace("server x", "server y"))[0])


class AuthenticatorTests(ConfigCase):
    """Who judges logins."""

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
        """Each directive chooses its own."""
        self.assertEqual(self.kind(IMAP + AUTH), "http")
        self.assertEqual(self.kind(IMAP + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\n"), "passthrough")

    def test_default(self):
        """Beside another, proxy_pass is only the backend of accounts whose own is not known."""
        text = IMAP + "proxy_pass = 10.0.0.1:143\n"
        self.assertEqual(self.kind(text + AUTH), "http")
        self.assertEqual(self.kind(text + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.server(text + AUTH)[ProxySettings].backend, Backend("10.0.0.1", 143))

    def test_none(self):
        """A server whose logins nobody judges is refused."""
        self.assertFaults(IMAP, "1: [server imap] auth_http: is missing: give auth_http, auth_file or proxy_pass")
        self.assertIsNone(authenticatorKind(ServerSettings("x", "imap", ())))

    def test_exclusive(self):
        """A service and a file cannot both judge."""
        expected = "[server imap] auth_http: cannot stand together with auth_file"
        self.assertFaults(IMAP + AUTH + f"auth_file = {self.accounts()}\n", f"3: {expected}")
        self.assertFaults(
            MAIL + f"auth_file = {self.accounts()}\n" + IMAP, f"2: {expected}".replace("server imap", "mail")
        )

    def test_own(self):
        """What a server chooses for itself hides what [mail] chooses, either way."""
        server = self.server(MAIL + IMAP + f"auth_file = {self.accounts()}\n")
        self.assertEqual(server[HTTPSettings], HTTPSettings())
        self.assertNotIn("auth_http", server.given)
        server = self.server(f"[mail]\nauth_file = {self.accounts()}\n" + IMAP + AUTH)
        self.assertEqual(server[FileSettings], FileSettings())

    def test_unjudged(self):
        """A way to log in that the authenticator cannot judge is refused."""
        backend = "proxy_pass = 10.0.0.1:143\n"
        self.assertFaults(
            IMAP + backend + "imap_auth = plain cram-md5 external\n",
            "4: [server imap] imap_auth: offers cram-md5, external, which proxy_pass cannot judge",
        )
        self.assertFaults(
            "[server p]\nlisten = 127.0.0.1:110\npop3_auth = apop\n" + backend,
            "3: [server p] pop3_auth: offers apop, which proxy_pass cannot judge",
        )
        self.assertFaults(
            f"[server s]\nlisten = 127.0.0.1:25\nsmtp_auth = none external\nauth_file = {self.accounts()}\n",
            "3: [server s] smtp_auth: offers external, none, which auth_file cannot judge",
        )

    def test_judged(self):
        """A service can judge them all, a file what needs but a password, a backend what can be replayed."""
        every = "plain login cram-md5 external"
        self.assertEqual(self.kind(f"{IMAP}{AUTH}imap_auth = {every}\n"), "http")
        self.assertEqual(self.kind(f"{IMAP}auth_file = {self.accounts()}\nimap_auth = plain login cram-md5\n"), "file")
        text = "[server s]\nlisten = 127.0.0.1:25\nproxy_pass = 10.0.0.1:25\nsmtp_auth = plain login none\n"
        self.assertEqual(self.kind(text), "passthrough")

    def test_othersWords(self):
        """What another protocol's directive offers is not this server's."""
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\npop3_auth = apop\n"), "passthrough")

    def test_fileChecked(self):
        """The users are loaded, and what is wrong with them is told with the rest."""
        path = self.accounts()
        with open(path, "a", encoding="ascii") as opened:
            opened.write("ann:{ROT13}frnfnzr\n")
        faults = self.faults(IMAP + f"auth_file = {path}\n")
        self.assertIn(f"[server imap] auth_file = {path}: line 2 (ann): ", faults[0])
        self.assertNotIn("frnfnzr", faults[0])

    def test_fileMissing(self):
        """A file that is not there is told of."""
        self.assertFaults(
            IMAP + f"auth_file = {NOWHERE}/accounts\n",
            f"3: [server imap] auth_file = {NOWHERE}/accounts: cannot be read: No such file or directory",
        )
