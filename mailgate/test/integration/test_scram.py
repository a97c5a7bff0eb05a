# -*- test-case-name: mailgate.test.integration.test_scram -*-
"""
SCRAM in front and behind: clients prove their password to the gateway, which has the accounts' verifiers only, and the
gateway logs in at a Dovecot with the same verifiers by the key of the proof.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

from OpenSSL import SSL

from mailgate.login import Method
from mailgate.scram.client import ScramClient
from mailgate.scram.secrets import derivedSecret
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD, USERS
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.saslbackends import SALT, SaslBackends, verifier
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

PREFIX = {"imap": b"+ ", "pop3": b"+ ", "smtp": b"334 ", "sieve": b'"'}
COMMAND = {"imap": b"L0 AUTHENTICATE ", "pop3": b"AUTH ", "smtp": b"AUTH ", "sieve": b"AUTHENTICATE "}
ACCEPTED = {"imap": b"OK ", "pop3": b"+OK", "smtp": b"235 ", "sieve": b"OK "}
SUCCESS_DATA = re.compile(rb'OK \(SASL "([A-Za-z0-9+/=]+)"\) ')


class BoundClient(RawClient):
    """A client over TLS by pyOpenSSL, which knows the channel binding."""

    def wrap(self):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.socket.settimeout(None)
        self.socket = SSL.Connection(context, self.socket)
        self.socket.set_tlsext_host_name(b"localhost")
        self.socket.set_connect_state()
        self.socket.do_handshake()
        self._lines = None
        self._received = b""

    def line(self):
        if self._lines is not None:
            return super().line()
        while b"\n" not in self._received:
            self._received += self.socket.recv(65536)
        line, _, self._received = self._received.partition(b"\n")
        return line + b"\n"

    def close(self):
        self.socket.close()

    def binding(self):
        """The data of the channel binding tls-exporter."""
        return self.socket.export_keying_material(b"EXPORTER-Channel-Binding", 32)


class ScramTests(GatewayTestCase):
    """A gateway with verifiers in auth_file, and a Dovecot with the same ones."""

    needs = ("dovecot-sieve", "pigeonhole")

    def startBackends(self):
        return shared("sasl", SaslBackends)

    def configuration(self, site):
        """
        The users have the same salt at the gateway and at Dovecot, except the last one. Servers with C{-known} log in
        by SCRAM with the client's password; those with C{-twice} are in front of the others.
        """
        lines = [verifier(Method.SCRAM_SHA_256, SALT, user) for user in USERS]
        lines.append(
            verifier(Method.SCRAM_SHA_256, b"salt of gateway.", "hatter").replace("\n", f"::::::destuser={USERS[0]}\n")
        )
        site.write("users", "".join(lines))
        servers = ""
        for protocol in self.backends.protocols:
            words = f"{protocol}_auth = plain scram-sha-256" + "\nproxy_smtp_auth = on" * (protocol == "smtp")
            backend = f"proxy_pass = 127.0.0.1:{self.backends.judging(protocol)}"
            servers += site.server(protocol, f"{backend}\n{words}")
            servers += site.server(protocol, f"{backend}\n{words}\nproxy_auth = scram-sha-256", f"{protocol}-known")
            first = f"proxy_pass = 127.0.0.1:{site.at(protocol).port}"
            servers += site.server(protocol, f"{first}\n{words}", f"{protocol}-twice")
        return site.mail("auth_file = users") + servers

    def connect(self, name, tls="plain", kind=RawClient):
        """A client of a server of the gateway."""
        client = kind(self.at(name, tls))
        self.addCleanup(client.close)
        return client

    def prove(self, client, user="", password=PASSWORD, mechanism=b"SCRAM-SHA-256", header=b"n,,", data=b""):
        """Log in; return the reply without IMAP's tag, and the gateway's challenge."""
        protocol = client.address.protocol
        scram = ScramClient((user or self.user).encode(), b"", b"rOprNGfwEbeRWgbNEkqO")
        scram._header, scram.message = header + data, header + scram._bare
        quote = b'"' if protocol == "sieve" else b""
        name = quote + mechanism + quote
        client.send(COMMAND[protocol] + name + b" " + quote + b64encode(scram.message) + quote + b"\r\n")
        challenge = b64decode(client.line().removeprefix(PREFIX[protocol]))
        given = scram.first(challenge)
        secret = derivedSecret(Method.SCRAM_SHA_256, password.encode(), given.salt, given.iterations)
        client.send(quote + b64encode(scram.final(secret)) + quote + b"\r\n")
        reply = client.line()
        if data := SUCCESS_DATA.match(reply):
            # RFC 5804 has no last challenge.
            self.assertTrue(scram.verify(b64decode(data[1])))
        elif reply.startswith(PREFIX[protocol]):
            self.assertTrue(scram.verify(b64decode(reply.removeprefix(PREFIX[protocol]))))
            client.send(b"\r\n")
            reply = client.reply(b"L0 " if protocol == "imap" else b"")
        return reply.removeprefix(b"L0 "), challenge

    def test_verifierOnly(self):
        """The key of the client's proof opens the mailbox, and no password is anywhere."""
        for protocol in self.backends.protocols:
            client = self.connect(protocol)
            reply, _ = self.prove(client)
            self.assertTrue(reply.startswith(ACCEPTED[protocol]), reply)
            self.assertIn(b"O", client.noop().upper())
        self.assertIn("method scram-sha-256", self.log())

    def test_twice(self):
        """So it does behind two gateways in a row with the same verifiers: the first logs in at the second by SCRAM."""
        for protocol in self.backends.protocols:
            client = self.connect(f"{protocol}-twice", "starttls")
            reply, _ = self.prove(client)
            self.assertTrue(reply.startswith(ACCEPTED[protocol]), reply)
            wrong, _ = self.prove(self.connect(f"{protocol}-twice"), password="tea-party")
            self.assertFalse(wrong.startswith(ACCEPTED[protocol]), wrong)
        for protocol in self.backends.protocols:
            for name in (protocol, f"{protocol}-twice"):
                address = f"server 127.0.0.1:{self.at(name).port},"
                waitUntil(lambda address=address: self.loggedIn(address), f"{name} logs a login by SCRAM")

    def loggedIn(self, address):
        """Whether the gateway has logged a login by SCRAM at a server with C{address}."""
        return any(address in line and "method scram-sha-256" in line for line in self.log().splitlines())

    def test_refused(self):
        """A wrong password and an unknown user are refused alike; the challenge of the latter is always the same."""
        client = self.connect("imap")
        wrong, _ = self.prove(client, password="tea-party")
        unknown, one = self.prove(client, "dormouse")
        again, other = self.prove(self.connect("imap"), "dormouse")
        self.assertEqual(wrong, unknown)
        self.assertEqual(wrong, again)
        self.assertTrue(wrong.startswith(b"NO [AUTHENTICATIONFAILED]"), wrong)
        self.assertEqual(one.partition(b",s=")[2], other.partition(b",s=")[2])
        self.assertTrue(self.prove(client)[0].startswith(b"OK "))

    def test_otherSalt(self):
        """The key is of no use at a backend with another salt. The client gets a temporary failure."""
        reply, _ = self.prove(self.connect("imap"), "hatter")
        self.assertTrue(reply.startswith(b"NO [UNAVAILABLE]"), reply)
        self.assertIn("has another salt or number of iterations", self.log())

    def test_password(self):
        """A password in the clear is checked with the verifier, and logs in at the backend, by SCRAM if that is set."""
        for protocol in self.backends.protocols:
            for name in (protocol, f"{protocol}-known"):
                reply = self.connect(name).login(self.user, PASSWORD)
                self.assertTrue(reply.startswith(ACCEPTED[protocol]), reply)
        self.assertTrue(self.connect("imap").login(self.user, "tea-party").startswith(b"NO "))

    def test_bound(self):
        """With TLS 1.3 the proof is bound to the connection, after STARTTLS as well."""
        for protocol in ("imap", "pop3"):
            for tls in ("implicit", "starttls"):
                client = self.connect(protocol, tls, BoundClient)
                self.assertEqual(client.socket.get_protocol_version_name(), "TLSv1.3")
                plus = {"mechanism": b"SCRAM-SHA-256-PLUS", "header": b"p=tls-exporter,,"}
                reply, _ = self.prove(client, data=bytes(32), **plus)
                self.assertNotIn(b"OK", reply)
                reply, _ = self.prove(client, data=client.binding(), **plus)
                self.assertTrue(reply.startswith(ACCEPTED[protocol]), reply)

    def test_downgraded(self):
        """A client that supports -PLUS and does not see it is refused."""
        client = self.connect("imap", "implicit", BoundClient)
        client.send(b"L0 AUTHENTICATE SCRAM-SHA-256 " + b64encode(b"y,,n=x,r=abc") + b"\r\n")
        self.assertTrue(client.line().startswith(b"L0 BAD "))
