"""
Tests of what the importer cannot carry over, and of hostile values.
"""

from __future__ import annotations

from mailgate.auth.http.settings import HTTPSettings
from mailgate.config import parse
from mailgate.frontend.settings import DialogueSettings
from mailgate.nginx.conf import Refused
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.test.support.importcase import MAIL, ImportCase
from mailgate.tls.settings import TLSSettings


class NotCarriedTests(ImportCase):
    """Directives that mailgate does not have, and the remarks about them."""

    def test_commentedOut(self):
        """It becomes a comment with the reason; the rest is carried over."""
        text = "\n auth_http_timeout soon;\n timeout 5s; server { listen 143; }"
        ini, told = self.imported(MAIL.format(text))
        reason = "must be a time, such as 30s, 1h30m or 500ms"
        self.assertEqual(told, [f"nginx.conf:2: auth_http_timeout: not carried over: {reason}"])
        self.assertIn(f"\n# Not carried over: {reason}\n# auth_http_timeout = soon\ntimeout = 5s\n", ini)
        parse(ini)

    def test_oneOfSeveral(self):
        """A bad item of a list is left out, the others stay."""
        text = "server {\n listen 143;\n listen 127.0.0.1;\n listen 993 frob;\n listen 144; }"
        settings, told = self.settings(MAIL.format(text))
        self.assertEqual([address.port for address in settings.servers[0].listen], [143, 144])
        self.assertEqual([line.partition(":")[2][:10] for line in told], ["3: listen:", "4: listen:"])

    def test_capabilities(self):
        """
        Capabilities that are not announced are reported, as are parameters without quotes, which nginx reads as
        capabilities.
        """
        text = "\n smtp_capabilities SIZE 50000000 STARTTLS;\n pop3_capabilities TOP STLS;\n server { listen 143; }"
        _, told = self.settings(MAIL.format(text))
        own = "is left out: the gateway announces it whenever it applies"
        self.assertEqual(
            told,
            [
                f'nginx.conf:2: smtp_capabilities: carried over, but "STARTTLS" {own}',
                'nginx.conf:2: smtp_capabilities: carried over as two capabilities, because "SIZE 50000000" has'
                " no quotes in nginx.conf: write SIZE 50000000 on one line",
                f'nginx.conf:3: pop3_capabilities: carried over, but "STLS" {own}',
            ],
        )
        _, told = self.settings(MAIL.format('smtp_capabilities "SIZE 50000000" 8BITMIME; server { listen 143; }'))
        self.assertEqual(told, [])

    def test_ticketKey(self):
        """Without TLS the key of tickets is not checked; it is a file's."""
        ini, told = self.imported(MAIL.format("ssl_session_ticket_key k; server { listen 143; }"))
        self.assertEqual(told, [])
        self.assertRegex(ini, r"(?m)^ssl_session_ticket_key = /.*/k$")

    def test_unknown(self):
        """Directives of a fork of nginx, and misspelt ones, are reported; the others are carried over."""
        ini, told = self.imported(MAIL.format("frob 1; server { listen 143; listn 144; auth_file x; }"))
        self.assertEqual(
            told,
            [
                'nginx.conf:1: not carried over: unknown directive "frob"',
                'nginx.conf:1: not carried over: unknown directive "listn"',
                'nginx.conf:1: not carried over: unknown directive "auth_file"',
            ],
        )
        self.assertIn("\n# frob = 1\n", ini)

    def test_together(self):
        """A directive that is valid alone, but not with the others, is found too."""
        text = "server {\n listen 143;\n ssl_ciphers nonsense; starttls on;\n {} }"
        settings, told = self.settings(MAIL.format(text.replace("{}", self.tlsPair())))
        (line,) = told
        self.assertTrue(line.startswith("nginx.conf:3: ssl_ciphers: not carried over: "), line)
        self.assertEqual(settings.servers[0][TLSSettings].ciphers, "HIGH:!aNULL:!MD5")

    def test_server(self):
        """A server that lacks something that it needs, which nginx would refuse, is left out; the others stay."""
        text = (
            "events { } mail {\n server { auth_http a; listen 9; }\n server { listen 110; }\n server { auth_http a; }\n"
        )
        settings, told = self.settings(text + "server { listen 143; auth_http a; } }")
        self.assertEqual([server.name for server in settings.servers], ["imap"])
        self.assertEqual(
            [line.partition(" is missing")[0] for line in told],
            [
                "nginx.conf:2: server: not carried over: protocol",
                "nginx.conf:3: server: not carried over: auth_http",
                "nginx.conf:4: server: not carried over: listen",
            ],
        )

    def test_guard(self):
        """A server that could not refuse the clients that nginx refuses is left out, wherever the directive stands."""
        for text in ("server {\n starttls frob; listen 110; }", "\nstarttls frob; server { listen 110; }"):
            settings, told = self.settings(MAIL.format(f"{text} server {{ listen 143; starttls off; }}"))
            self.assertEqual([server.name for server in settings.servers], ["imap"])
            self.assertEqual(len(told), 2)
            self.assertTrue(any("starttls: not carried over: must be one of" in line for line in told), told)
            self.assertTrue(any("server: not carried over: without starttls" in line for line in told), told)

    def leftOut(self, text: str, name: str) -> None:
        """Of the two servers of C{text}, POP3 and IMAP, the IMAP server, which lacks C{name}, is left out."""
        settings, told = self.settings(text)
        self.assertEqual([server.name for server in settings.servers], ["pop3"], text)
        self.assertTrue(any(f": {name}: not carried over: " in line for line in told), told)
        self.assertTrue(any(f"server: not carried over: without {name} " in line for line in told), told)

    def test_otherService(self):
        """A server whose own service cannot be used does not use that of [mail], nor an earlier one."""
        good, bad = "auth_http 127.0.0.1:9001/all;", 'auth_http "127.0.0.1:9002/a#b";'
        pop3 = f"server {{ listen 127.0.0.1:110; {good} }}"
        for mail, imap in ((good, bad), (good, good + bad), (good, bad + good + bad), (bad, ""), (good + bad, "")):
            text = f"events {{ }} mail {{ {mail} {pop3} server {{ listen 127.0.0.1:143; {imap} }} }}"
            self.leftOut(text, "auth_http")

    def test_laterService(self):
        """The last service counts, whatever is wrong with an earlier one, which nginx does not use either."""
        text = 'server { listen 143; auth_http "a/#"; auth_http b; auth_http c; }'
        settings, told = self.settings(MAIL.format(text))
        self.assertEqual([url.host for url in settings.servers[0][HTTPSettings].urls], ["c"])
        self.assertEqual(len(told), 1)

    def test_earlierService(self):
        """A service of [mail] that nginx does not use is not in the file: a server might be enabled again by hand."""
        bad = 'auth_http 127.0.0.1:1; auth_http "a/#"; server { listen 143; } server { listen 110; auth_http b; }'
        ini, _ = self.imported(f"events {{ }} mail {{ {bad} }}")
        self.assertNotIn("127.0.0.1:1", ini)

    def test_ownValue(self):
        """A server does not fall back to headers, senders, certificates, methods and the like of [mail] either."""
        pair = self.tlsPair()
        for name, good, bad in (
            ("auth_http_header", "X all", '"X" "a\\nb"'),
            ("set_real_ip_from", "10.0.0.0/8", "10.0.0.0/255.0.0.0"),
            ("imap_auth", "plain", "cram"),
            ("proxy_protocol", "on", "v3"),
            ("ssl_ciphers", "ALL", '"A\nB"'),
            ("ssl_protocols", "TLSv1.2", "TLSv4"),
            ("ssl_client_certificate", "/all.pem", '"/a\nb.pem"'),
            ("ssl_certificate_key", "/all.key", "engine:x"),
        ):
            imap = (
                f"server {{ listen 143 ssl proxy_protocol; {pair if 'certificate' not in name else ''} {name} {bad}; }}"
            )
            own = f"server {{ listen 110; {name} {good}; }}"
            self.leftOut(MAIL.format(f"{name} {good}; {own} {imap}"), name)

    def test_verifyMode(self):
        """With OpenSSL's VerifyMode nginx refuses clients; a server that cannot do that is left out."""
        pair = self.tlsPair()
        for mode in ("Require", "Request,Require", "Peer"):
            server = f"server {{ listen 993 ssl; ssl_conf_command VerifyMode {mode}; }}"
            self.leftOut(MAIL.format(f"{pair} server {{ listen 110; }} {server}"), "ssl_conf_command")

    def test_wildcard(self):
        """A server that would receive the clients of a left-out one is left out too."""
        bad = 'auth_http "a/#";'
        for wildcard, address in (
            ("110", "127.0.0.1:110"),
            ("[::]:110 ipv6only=off", "127.0.0.1:110"),
            ("[::]:110", "[::1]:110"),
        ):
            first, second = f"server {{ listen {wildcard}; }}", f"server {{ listen {address}; {bad} }}"
            text = f"{first} {second} server {{ listen 127.0.0.1:143; }}"
            settings, told = self.settings(MAIL.format(text))
            self.assertEqual([server.name for server in settings.servers], ["imap"])
            self.assertTrue(any(f"receive the clients of {address}" in line for line in told), told)
        wide, wider = "server { listen 110; listen 1143; protocol pop3; }", "server { listen [::]:110 ipv6only=off; }"
        other = "server { listen 127.0.0.1:1143; protocol imap; }"
        first, last = f"server {{ listen 127.0.0.1:110; {bad} }}", "server { listen 25; }"
        settings, told = self.settings(MAIL.format(f"{wide} {wider} {other} {first} {last}"))
        self.assertEqual([server.name for server in settings.servers], ["imap", "smtp"])
        for wildcard in ("111", "[::]:110"):
            text = f"server {{ listen {wildcard}; protocol pop3; }} server {{ listen 127.0.0.1:110; {bad} }}"
            settings, _ = self.settings(MAIL.format(text))
            self.assertEqual(len(settings.servers), 1)

    def test_comfort(self):
        """A server stays if the replaced values do not concern security; they are reported."""
        text = "timeout 10s; server {\n listen 143;\n timeout 0;\n auth_http_timeout 0;\n resolver_timeout 0; }"
        settings, told = self.settings(MAIL.format(text))
        (server,) = settings.servers
        self.assertEqual((server[DialogueSettings].timeout, server[HTTPSettings].timeout), (10.0, 60.0))
        reason = "not carried over: must be longer than 0"
        names = ("timeout", "auth_http_timeout", "resolver_timeout")
        self.assertEqual(told, [f"nginx.conf:{line}: {name}: {reason}" for line, name in enumerate(names, 3)])

    def test_nothing(self):
        """If no server is left, the import fails."""
        error = self.assertRaises(Refused, self.imported, "events { } mail { server { listen 143; } }")
        first, last = str(error).splitlines()
        self.assertIn("auth_http is missing", first)
        self.assertIn("nothing can be carried over", last)

    def test_duplicateAddress(self):
        """If two servers have the same address, which nginx refuses, the import fails."""
        for first, second in (("143", "*:143"), ("127.0.0.1:1-3", "127.0.0.1:2"), ("unix:/x", "unix:/x")):
            text = f"server {{ listen {first}; protocol imap; }}\n server {{ listen {second}; protocol pop3; }}"
            error = self.assertRaises(Refused, self.imported, MAIL.format(text))
            self.assertIn('nginx.conf:2: listen: duplicate "', str(error))


class NastyTests(ImportCase):
    """Values that are special in an ini file."""

    def headers(self, written: str | bytes) -> tuple[tuple[tuple[bytes, bytes], ...], list[str]]:
        raw = written.encode() if isinstance(written, str) else written
        text = b"events { } mail { auth_http a; server { listen 143; } " + raw + b" }"
        settings, told = self.settings(text)
        return settings.servers[0][HTTPSettings].headers, told

    def test_carried(self):
        """Comment signs, equals signs, percent signs, brackets, quotes and backslashes are preserved."""
        for value in (
            "# a",
            "; a",
            "=",
            "a = b",
            "%(a)s %",
            "[mail]",
            '\\"a\\"',
            "\\\\n",
            "a  b",
            "é\u00a0é",
            "listen = 1",
        ):
            headers, told = self.headers(f'auth_http_header X "{value}"; auth_http_header Y "{value}";')
            meant = value.replace('\\"', '"').replace("\\\\", "\\").encode()
            self.assertEqual((headers, told), (((b"X", meant), (b"Y", meant)), []))

    def test_listed(self):
        """Values that an ini file cannot hold are reported, and become comments."""
        for value in (b"a\\nb", b"a\nlisten = 25", b"a\rb", b"\\t", b"a\xe9", "a\u00a0".encode(), b"a\x00b"):
            text = b'server { listen 143; auth_http_header X "' + value + b'"; } server { listen 110; }'
            settings, told = self.settings(b"events { } mail { auth_http a; " + text + b" }")
            self.assertEqual([server.name for server in settings.servers], ["pop3"])
            line, _ = told
            self.assertIn("nginx.conf:1: auth_http_header: not carried over: its value ", line)

    def test_blanks(self):
        """Blanks around the value of a header, which HTTP ignores, are left out and reported."""
        headers, told = self.headers('auth_http_header X "  a b ";')
        self.assertEqual(headers, ((b"X", b"a b"),))
        self.assertEqual(told, ["nginx.conf:1: auth_http_header: carried over without the blanks around its value"])

    def test_emptyHeader(self):
        """A header without a value stays without one."""
        self.assertEqual(self.headers('auth_http_header X "";'), (((b"X", b""),), []))

    def test_injection(self):
        """No comment of the ini file can begin a new line of it."""
        ini, _ = self.imported(MAIL.format('frob "a\n[sandbox]\nusers = x y"; server { listen 143; }'))
        self.assertEqual(
            [line for line in ini.splitlines() if "sandbox" in line], [r"# frob = a\n[sandbox]\nusers = x y"]
        )

    def test_commentLike(self):
        """The first item of a list may begin like a comment; a later one cannot."""
        settings, told = self.settings(MAIL.format('server { listen 143; imap_capabilities "#A" B; }'))
        self.assertEqual((settings.servers[0][IMAP4Settings].capabilities, told), (("#A", "B"), []))
        settings, told = self.settings(MAIL.format('server { listen 143; imap_capabilities B "#A"; }'))
        self.assertEqual(settings.servers[0][IMAP4Settings].capabilities, ("IMAP4", "IMAP4rev1", "UIDPLUS"))
        self.assertIn("is a comment", *told)


class SecretTests(ImportCase):
    """Secrets are not reported."""

    def test_secrets(self):
        """No remark contains the value of a header, a key or a query."""
        for text in (
            'auth_http_header "X Y" sesame;',
            "auth_http_header X: sesame;",
            'auth_http_header X "sesame\n";',
            'auth_http_header sesame: "sesame";',
            "auth_http http://joe:sesame@host/;",
            'auth_http "a/?key=sesame x";',
            'ssl_certificate_key "data:sesame";ssl_certificate x; starttls on;',
            'ssl_conf_command "sesame x" sesame;',
            'ssl_conf_command PrivateKey "data:sesame";ssl_certificate x; starttls on;',
        ):
            _, told = self.imported(
                MAIL.format(f"server {{ listen 143; auth_http b; {text} }} server {{ listen 110; }}")
            )
            self.assertTrue(told, text)
            self.assertNotIn("sesame", "\n".join(told))

    def test_shown(self):
        """Values without secrets are reported with the reason, even if it contains the value."""
        for text, reason in (
            ("ssl_conf_command Options PrioritizeChaCha", '"PrioritizeChaCha" is unknown; use some of'),
            ("ssl_conf_command Options KTLS", '"KTLS" is unknown; use some of'),
            (
                "ssl_conf_command Groups X25519",
                "Groups: must be auto, prime256v1, secp384r1 or secp521r1: pyOpenSSL cannot set",
            ),
            ("auth_http_header X: a", "must be NAME VALUE, where NAME is an HTTP header without a colon"),
            ('auth_http "a/?b#"', "contains a space, a # or a character outside ASCII"),
        ):
            _, told = self.imported(MAIL.format(f"server {{ listen 143; {text}; }} server {{ listen 110; }}"))
            self.assertIn(f"nginx.conf:1: {text.split()[0]}: not carried over: ", told[0])
            self.assertIn(reason, told[0])
