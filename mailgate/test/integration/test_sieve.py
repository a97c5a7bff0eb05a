"""
ManageSieve with a real Pigeonhole behind the gateway: kinds of connections, refusals, and failures.
"""

from __future__ import annotations

import base64
import json
import re
import socket

from mailgate.test.integration.authservice import Answer, deciding, refuse
from mailgate.test.integration.daemon import freePort, shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.pigeonhole import SieveBackends
from mailgate.test.integration.programs import require
from mailgate.test.integration.sievebackends import CyrusLike, StalwartLike
from mailgate.test.integration.sieveclient import SieveClient, plain
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

SCRIPT = b'require ["fileinto"];\r\nif header :contains "subject" "\xc3\xa9" { fileinto "a b"; }\r\n'

OWNER = "127.0.0.3"
"""The address of a client, which is not the gateway's."""

TOKENS = (b"XOAUTH2", b"OAUTHBEARER")
"""Mechanisms with bearer tokens."""

REFUSAL = 'Nicht "jetzt"\\ — né'
"""The text of a refusal of the authentication service."""


class SieveTestCase(GatewayTestCase):
    """A gateway with servers in front of a Pigeonhole, and of servers with other manners."""

    def startBackends(self):
        """Only Pigeonhole."""
        require("dovecot-sieve", "pigeonhole")
        return shared("pigeonhole", SieveBackends)

    def configuration(self, site):
        """Server names are C{sieve} and what differs from it."""
        there = "127.0.0.1:{}".format(self.backends.dovecot.ports["sieve"])
        auth = f"auth_http = {site.auth.url}"
        tls = f"proxy_ssl = starttls\nproxy_ssl_trusted_certificate = {self.backends.authority.path}\n"
        servers = site.server("sieve", f"{auth}\nsieve_auth = plain login")
        servers += site.server("sieve", f"{auth}\nsieve_auth = xoauth2 oauthbearer plain scram-sha-256", name="tokens")
        servers += site.server("sieve", f"proxy_pass = {there}", name="judged")
        servers += site.server("sieve", f"proxy_pass = {there}\n{tls}proxy_ssl_name = localhost", name="verified")
        servers += site.server("sieve", f"proxy_pass = {there}\n{tls}proxy_ssl_name = other.example", name="misnamed")
        servers += site.server(
            "sieve", f"{auth}\nauth_http_header = X-Backend sieve-haproxy\nproxy_protocol = on", name="header"
        )
        servers += site.server("sieve", f"proxy_pass = 127.0.0.1:{site.at('judged').port}", name="twice")
        inner = site.server("sieve", f"proxy_pass = {there}\nset_real_ip_from = 127.0.0.1", name="inner")
        servers += re.sub(r"^( *127\.0\.0\.1:\d+)", r"\1 proxy_protocol", inner, flags=re.MULTILINE)
        servers += site.server(
            "sieve", f"proxy_pass = 127.0.0.1:{site.at('inner').port}\nproxy_protocol = on", name="outer"
        )
        servers += site.server("sieve", f"auth_http = http://127.0.0.1:{freePort()}/", name="unjudged")
        servers += site.server(
            "sieve", f"proxy_pass = 127.0.0.1:{freePort()}\nproxy_next_upstream = off", name="nowhere"
        )
        servers += site.server("sieve", f"proxy_pass = {there}\nstarttls = only", name="guarded")
        for name, kind in (("cyrus", CyrusLike), ("stalwart", StalwartLike)):
            backend = shared(kind, lambda kind=kind: kind())
            servers += site.server("sieve", f"proxy_pass = 127.0.0.1:{backend.port}", name=name)
        return site.mail() + servers

    def connect(self, name="sieve", tls="plain", source=""):
        """A client of C{[server NAME]}."""
        client = SieveClient(self.at(name, tls), source)
        self.addCleanup(client.close)
        return client

    def loggedIn(self, name="sieve", tls="plain", source=""):
        """A client that has logged in."""
        client = self.connect(name, tls, source)
        self.assertEqual(client.login(self.user, PASSWORD), b'OK "Logged in."\r\n')
        return client

    def assertServes(self, client):
        """The client can store a script, and gets it back."""
        self.assertTrue(client.ask(b'PUTSCRIPT "s" {%d+}\r\n%b\r\n' % (len(SCRIPT), SCRIPT)).startswith(b"OK"))
        self.assertTrue(client.ask(b'GETSCRIPT "s"\r\n').startswith(b"{%d}\r\n%b\r\nOK" % (len(SCRIPT), SCRIPT)))
        self.assertEqual(client.ask(b"LOGOUT\r\n"), b'OK "Logout completed."\r\n')
        self.assertEqual(client.rest(), b"")


class ConnectionTests(SieveTestCase):
    """Kinds of connections."""

    def test_clear(self):
        """A script is stored and read; the greeting has Pigeonhole's extensions, and nothing that is not kept."""
        client = self.loggedIn()
        self.assertServes(client)
        later = self.connect()
        for line in (b'"STARTTLS"\r\n', b'"SASL" "PLAIN LOGIN"\r\n', b'"VERSION" "1.0"\r\n', b'"IMPLEMENTATION" '):
            self.assertEqual(later.greeting.count(line), 1, later.greeting)
        for word in (b"fileinto", b"vacation", b"imap4flags", b'"NOTIFY" "mailto"'):
            self.assertIn(word, later.greeting)
        for word in (b"XCLIENT", b"Dovecot", b"UNAUTHENTICATE", b"OWNER"):
            self.assertNotIn(word, later.greeting)
        self.assertEqual(later.ask(b"CAPABILITY\r\n").rpartition(b"OK ")[0], later.greeting.rpartition(b"OK ")[0])

    def test_learned(self):
        """The list before the login is that of the backend, except for what the gateway has of its own."""
        own = re.compile(rb'"(?:IMPLEMENTATION|SASL|STARTTLS|XCLIENT)".*\r\n|(?:OK|NO) .*\r\n')
        self.loggedIn("judged")
        wanted = sorted(own.sub(b"", SieveClient(self._pigeonhole()).greeting).splitlines())
        waitUntil(
            lambda: sorted(own.sub(b"", self.connect("judged").greeting).splitlines()) == wanted,
            "the gateway announces what Pigeonhole lists",
        )

    def _pigeonhole(self):
        """The address of Pigeonhole itself."""
        address = self.at("sieve")
        return type(address)("sieve", self.backends.dovecot.ports["sieve"], "plain", address.authority)

    def test_starttls(self):
        """After STARTTLS the list comes again, in one segment, without STARTTLS. What was sent behind it is dropped."""
        client = self.connect()
        client.startTLS(b'NOOP "smuggled"\r\n')
        self.assertEqual(client.ask(b'NOOP "a"\r\n'), b'OK (TAG "a") "Done"\r\n')
        self.assertEqual(client.ask(b"STARTTLS\r\n"), b'NO "TLS is already active."\r\n')
        client = self.loggedIn("sieve", "starttls")
        self.assertNotIn(b"STARTTLS", client.secured)
        self.assertIn(b'"SIEVE" "', client.secured)
        self.assertServes(client)

    def test_implicit(self):
        """TLS from the first byte works."""
        client = self.loggedIn("sieve", "implicit")
        self.assertNotIn(b"STARTTLS", client.greeting)
        self.assertServes(client)

    def test_only(self):
        """Where TLS is required no mechanism is offered without it, and no password is taken."""
        client = self.connect("guarded")
        self.assertIn(b'"SASL" ""\r\n', client.greeting)
        self.assertTrue(client.login(self.user, PASSWORD).startswith(b"NO (ENCRYPT-NEEDED) "))
        self.assertIn(b'"SASL" "PLAIN"\r\n', client.startTLS())
        self.assertTrue(client.login(self.user, PASSWORD).startswith(b"OK"))

    def test_backendTLS(self):
        """STARTTLS to the backend: its certificate is verified. A wrong name is a temporary failure."""
        self.assertServes(self.loggedIn("verified", "starttls"))
        pattern = re.compile(rf"Login: user=<{self.user}>.*, TLS,")
        waitUntil(lambda: pattern.search(self.backends.dovecot.log()), "Pigeonhole logs a login over TLS")
        client = self.connect("misnamed")
        self.assertTrue(client.login(self.user, PASSWORD).startswith(b"NO (TRYLATER) "))
        self.assertTrue(client.ask(b"NOOP\r\n").startswith(b"OK"))

    def assertSeen(self, address):
        """Pigeonhole's log has the client's C{address}."""
        pattern = re.compile(rf"Login: user=<{self.user}>.* rip=([^,]*),")
        waitUntil(lambda: pattern.search(self.backends.dovecot.log()), "the login is logged")
        self.assertEqual(pattern.findall(self.backends.dovecot.log()), [address])

    def test_xclient(self):
        """Pigeonhole's log has the client's address, by XCLIENT."""
        self.assertServes(self.loggedIn(source=OWNER))
        self.assertSeen(OWNER)

    def test_proxyHeader(self):
        """So has it by a PROXY header."""
        self.assertServes(self.loggedIn("header", source=OWNER))
        self.assertSeen(OWNER)

    def test_twice(self):
        """Two gateways in a row work, with TLS in front."""
        self.assertServes(self.loggedIn("twice", "starttls"))

    def test_twiceWithAddress(self):
        """Behind two gateways Pigeonhole's log has the first client's address: a PROXY header, then XCLIENT."""
        self.assertServes(self.loggedIn("outer", "starttls", OWNER))
        self.assertSeen(OWNER)

    def test_large(self):
        """A script of the largest size that Pigeonhole takes passes in both directions, unchanged."""
        script = b"# 0123456789 \xc3\xa9\r\n" * 50_000
        for name, tls in (("sieve", "plain"), ("verified", "starttls")):
            client = self.loggedIn(name, tls)
            self.assertTrue(client.ask(b'PUTSCRIPT "large" {%d+}\r\n%b\r\n' % (len(script), script)).startswith(b"OK"))
            reply = client.ask(b'GETSCRIPT "large"\r\n')
            self.assertTrue(reply.startswith(b"{%d}\r\n" % len(script)))
            self.assertIn(script, reply)

    def test_pipelined(self):
        """Commands that are pipelined behind the login reach Pigeonhole, each once."""
        client = self.connect()
        login = b'AUTHENTICATE "PLAIN" "' + plain(self.user, PASSWORD) + b'"\r\n'
        client.send(login + b'PUTSCRIPT "s" {5+}\r\nkeep;\r\nLISTSCRIPTS\r\nLOGOUT\r\n')
        self.assertEqual(client.reply(), b'OK "Logged in."\r\n')
        self.assertTrue(client.reply().startswith(b"OK"))
        self.assertTrue(client.reply().startswith(b'"s"\r\nOK'))
        self.assertTrue(client.reply().startswith(b"OK"))
        self.assertEqual(client.rest(), b"")


class RefusalTests(SieveTestCase):
    """Logins that fail."""

    def test_wrongThenRight(self):
        """The connection survives a refusal, by Pigeonhole as by the service; the next login works."""
        for name in ("judged", "sieve"):
            client = self.connect(name)
            self.assertTrue(client.login(self.user, "wrong").startswith(b'NO "'))
            self.assertEqual(client.login(self.user, PASSWORD), b'OK "Logged in."\r\n')
            self.assertTrue(client.ask(b"LISTSCRIPTS\r\n").endswith(b'OK "Listscripts completed."\r\n'))

    def deny(self, service, question):
        """Refuse a wrong password with L{REFUSAL}."""
        if question["Auth-Pass"] == PASSWORD:
            host, port = service.backends["sieve"]
            return Answer({"Auth-Status": "OK", "Auth-Server": host, "Auth-Port": str(port)})
        return Answer({"Auth-Status": REFUSAL.encode().decode("latin-1")})

    def test_text(self):
        """The text of a refusal keeps its UTF-8; its quotes are escaped."""
        self.site.auth.manners[self.user] = self.deny
        self.addCleanup(self.site.auth.manners.pop, self.user)
        said = self.connect().login(self.user, "wrong")
        self.assertEqual(said, 'NO "Nicht \\"jetzt\\"\\\\ — né"\r\n'.encode())
        (asked,) = self.site.auth.askedAbout(self.user)
        self.assertEqual((asked["Auth-Protocol"], asked["Auth-Method"]), ("sieve", "plain"))

    def test_codes(self):
        """Codes of RFC 5804 come in parentheses; others do not."""
        for code, beginning in (
            ("TRYLATER", b"NO (TRYLATER) "),
            ("ENCRYPT-NEEDED", b"NO (ENCRYPT-NEEDED) "),
            ("AuthFailed", b'NO "'),
        ):
            answer = Answer({"Auth-Status": "no", "Auth-Error-Code": code})
            self.site.auth.manners[self.user] = lambda service, question, answer=answer: answer
            self.assertTrue(self.connect().login(self.user, "x").startswith(beginning), code)
        del self.site.auth.manners[self.user]

    def test_failures(self):
        """Where the service or the backend is down the failure is temporary, and the connection survives it."""
        for name in ("unjudged", "nowhere"):
            client = self.connect(name)
            self.assertTrue(client.login(self.user, PASSWORD).startswith(b"NO (TRYLATER) "), name)
            self.assertTrue(client.ask(b"NOOP\r\n").startswith(b"OK"))

    def test_authzid(self):
        """A differing authorization identity is refused, and the same one accepted."""
        client = self.connect()
        self.assertTrue(client.login(self.user, PASSWORD, "other").startswith(b"NO "))
        self.assertEqual(client.login(self.user, PASSWORD, self.user), b'OK "Logged in."\r\n')

    def test_invalid(self):
        """The answers to invalid commands are Pigeonhole's; the third one closes the connection."""
        direct = SieveClient(type(self.at("sieve"))("sieve", self.backends.dovecot.ports["sieve"], "plain", ""))
        self.addCleanup(direct.close)
        ours = self.connect()
        for command in (
            b'AUTHENTICATE "NOSUCH"',
            b"AUTHENTICATE PLAIN",
            b'AUTHENTICATE "PLAIN" "?"',
            b"LISTSCRIPTS",
            b'NOOP "a" "b"',
        ):
            self.assertEqual(ours.ask(command + b"\r\n"), direct.ask(command + b"\r\n"), command)
        self.assertEqual((ours.rest(), direct.rest()), (b"", b""))

    def test_refusedAndPipelined(self):
        """Behind a refused login the literals of other commands are no commands."""
        client = self.connect("judged")
        wrong, right = (b'AUTHENTICATE "PLAIN" "' + plain(self.user, word) + b'"\r\n' for word in ("wrong", PASSWORD))
        client.send(wrong + b'PUTSCRIPT "s" {%d+}\r\n%b\r\n' % (len(right), right) + b'NOOP "end"\r\n')
        self.assertEqual(client.reply(), b'NO "Authentication failed."\r\n')
        self.assertEqual(client.reply(), b'NO "Error in MANAGESIEVE command received by server."\r\n')
        self.assertEqual(client.reply(), b'OK (TAG "end") "Done"\r\n')
        self.assertTrue(client.ask(b"XCLIENT ADDR=192.0.2.1\r\n").startswith(b"NO "))
        client.send(right + b'NOOP "later"\r\n')
        self.assertTrue(client.reply().startswith(b"OK"))
        self.assertTrue(client.reply().startswith(b'OK (TAG "later")'))


class ManneredServerTests(SieveTestCase):
    """Servers with the manners of Cyrus and Stalwart."""

    def test_cyrus(self):
        """
        The list that follows the login does not reach the client, nor does the code that ends the exchange. The text of
        a refusal comes on one line.
        """
        client = self.connect("cyrus")
        self.assertEqual(
            client.login(self.user, "wrong"), 'NO "The password is \\"wröng\\". Try \\\\again."\r\n'.encode()
        )
        self.assertEqual(client.login(self.user, PASSWORD)[:3].strip(), b"OK")
        self.assertEqual(client.ask(b"LISTSCRIPTS\r\n"), b"OK\r\n")
        self.assertEqual(client.ask(b"LOGOUT\r\n"), b"OK\r\n")

    def test_cyrusPipelined(self):
        """Nor does it with commands behind the login."""
        client = self.connect("cyrus")
        client.send(b'AUTHENTICATE "PLAIN" "' + plain(self.user, PASSWORD) + b'"\r\nLISTSCRIPTS\r\nLOGOUT\r\n')
        self.assertTrue(client.reply().startswith(b"OK"))
        self.assertEqual(client.rest(), b"OK\r\nOK\r\n")

    def test_stalwart(self):
        """An initial response is always sent, so that a challenge without its line end never comes."""
        client = self.connect("stalwart")
        client.send(b'AUTHENTICATE "PLAIN"\r\n')
        self.assertEqual(client.line(), b'""\r\n')
        self.assertTrue(client.ask(b'"' + plain(self.user, PASSWORD) + b'"\r\n').startswith(b"OK"))
        self.assertEqual(client.ask(b'NOOP "abc"\r\n'), b'OK (TAG {3}\r\nabc) "Done"\r\n')
        heard = shared(StalwartLike, StalwartLike).heard[-1]
        self.assertRegex(bytes(heard), rb'AUTHENTICATE "PLAIN" "[A-Za-z0-9+/=]+"\r\nNOOP')


class TokenTests(SieveTestCase):
    """Bearer tokens, which the service judges."""

    def tearDown(self):
        self.site.auth.manners.pop(self.user, None)
        super().tearDown()

    def messages(self, token):
        """The names of mechanisms and their messages with C{token}, in base64."""
        texts = (f"user={self.user}\1auth=Bearer {token}\1\1", f"n,a={self.user},\1auth=Bearer {token}\1\1")
        return [(name, base64.b64encode(text.encode())) for name, text in zip(TOKENS, texts, strict=True)]

    def test_accepted(self):
        """A token of 10,000 bytes, in a literal with the command and behind its challenge."""
        self.site.auth.manners[self.user] = deciding(Auth_Pass=PASSWORD)
        token = "t" * 10_000
        for name, message in self.messages(token):
            literal = b"{%d+}\r\n%b\r\n" % (len(message), message)
            client = self.connect("tokens")
            self.assertEqual(client.ask(b'AUTHENTICATE "%b" ' % name + literal), b'OK "Logged in."\r\n')
            client = self.connect("tokens", "starttls")
            client.send(b'AUTHENTICATE "%b"\r\n' % name)
            self.assertEqual(client.line(), b'""\r\n')
            self.assertEqual(client.ask(literal), b'OK "Logged in."\r\n')
        self.assertEqual({asked["Auth-Pass"] for asked in self.site.auth.askedAbout(self.user)}, {token})

    def test_refused(self):
        """The error comes as a string. Each answer that clients have for it ends the attempt."""
        self.site.auth.manners[self.user] = refuse
        for name, message in self.messages("expired"):
            for answer in (b'""', b'"AQ=="', b'"*"', b"{0+}\r\n"):
                client = self.connect("tokens")
                client.send(b'AUTHENTICATE "%b" "%b"\r\n' % (name, message))
                error = re.fullmatch(rb'"([A-Za-z0-9+/=]+)"\r\n', client.line())
                self.assertIn("status", json.loads(base64.b64decode(error[1])))
                self.assertTrue(client.ask(answer + b"\r\n").startswith(b"NO "))


class SplitTests(SieveTestCase):
    """Bytes that arrive in pieces."""

    def test_everywhere(self):
        """A login with literals works wherever it is split."""
        message = plain(self.user, PASSWORD)
        login = b"AUTHENTICATE {5+}\r\nPLAIN {%d+}\r\n%b\r\n" % (len(message), message)
        for place in range(1, len(login)):
            client = self.connect("stalwart")
            client.send(login[:place])
            client.send(login[place:])
            self.assertTrue(client.reply().startswith(b"OK"), place)
            client.close()

    def test_single(self):
        """So it does byte by byte, over TLS too."""
        message = plain(self.user, PASSWORD)
        dialogue = b'NOOP {1+}\r\n"\r\nAUTHENTICATE "PLAIN"\r\n{%d+}\r\n%b\r\nNOOP "b"\r\n' % (len(message), message)
        for tls in ("plain", "starttls"):
            client = self.connect("stalwart", tls)
            for byte in dialogue:
                client.send(bytes((byte,)))
            self.assertEqual(client.reply(), b'OK (TAG "\\"") "Done"\r\n')
            self.assertEqual(client.line(), b'""\r\n')
            self.assertTrue(client.reply().startswith(b"OK"))
            self.assertEqual(client.reply(), b'OK (TAG {1}\r\nb) "Done"\r\n')


class HandedOverTests(SieveTestCase):
    """Ends."""

    def test_clientGone(self):
        """A client that disconnects after its login leaves no session at Pigeonhole."""
        client = self.loggedIn()
        client.socket.shutdown(socket.SHUT_RDWR)
        pattern = re.compile(rf"managesieve\({self.user}\).*Connection closed")
        waitUntil(lambda: pattern.search(self.backends.dovecot.log()), "the session at Pigeonhole ends")
